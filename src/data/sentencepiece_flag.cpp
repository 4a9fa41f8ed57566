// libsentencepiece.so and LibTorch's libc10.so both export a variable FLAGS_minloglevel: an object of 32 bytes with a
// constructor there, an int here. Whichever library comes first in the search order gives its own to the other, and
// when that is libc10, SentencePiece's constructor overwrites what lies behind the int. A program's own definition
// precedes both: room enough for the object, while libc10 touches its flag only to parse command lines, which Oryx
// never lets it.
extern "C" {
alignas(64) __attribute__((visibility("default"), used)) unsigned char FLAGS_minloglevel[256] = {};
}
