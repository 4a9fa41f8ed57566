#pragma once

#include <string_view>

namespace oryx::report {

// The style sheet of reports. Series and mixers take their colour from the classes attention, recurrent, mixed and
// other, so that one mixer looks the same in every chart, table and sample of a page.
extern const std::string_view kStyle;

}  // namespace oryx::report
