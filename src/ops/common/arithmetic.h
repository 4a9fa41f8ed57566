#pragma once

#include "ops/common/bf16.h"

namespace oryx::ops {

template <typename T>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};
// The type that kernels compute in for elements stored as T: double for double, else float.
template <typename T>
using Arithmetic = typename ArithmeticOf<T>::type;

}  // namespace oryx::ops
