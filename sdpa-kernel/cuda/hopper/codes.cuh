// Where probabilities lie among the e4m3 codes, and how far the row's reference may be from the scores of a tile.
#pragma once

namespace sdpa::hopper {

constexpr float kCodeOfOne = 56.0f;  // e4m3 1.0 = 0x38

// The code of the reference score, e4m3 104. A compromise between room above it and range below: probabilities less than
// 2^-13.6 of the reference's are lost. Not a power of two: there a linear mantissa would be exact, and the largest
// probability, which dominates peaked rows, should carry about the error that the others carry on average (+5 %, +4 %).
constexpr float kReferenceCode = 109.0f;

// How far codes may rise above it: 125 is e4m3 416, 127 would be NaN.
constexpr float kRoomCodes = 16.0f;

}  // namespace sdpa::hopper
