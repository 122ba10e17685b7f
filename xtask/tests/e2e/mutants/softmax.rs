//! Mutants of the online softmax: the maximum, the mask, the sum, the exponential, and rescaling.

use super::{
    CROSS, ERRORS, FEW_KEYS, LONG, LONG_RISING, Mutant, NEGATIVE, RISING, ROWS, SCALED, SINGLE_ROW, SLOPE, STRESS,
    UNSEEN, mutant,
};

/// Each computes something else.
pub const MUTANTS: &[Mutant] = &[
    mutant(
        "mask lets one key too many",
        "stage1",
        ["softmax.cuh", "if (key_of(i) >= limit)", "if (key_of(i) > limit)"],
        ERRORS,
        "",
    ),
    mutant(
        "second key of a pair is not masked",
        "stage1",
        ["softmax.cuh", "        if (key_of(i) + 1 >= limit) s[i].y = -INFINITY;\n", ""],
        ERRORS,
        "",
    ),
    mutant("masked keys have score 0", "stage2", ["softmax.cuh", "s[i].x = -INFINITY", "s[i].x = 0.0f"], ERRORS, ""),
    mutant(
        "causal row misses its own key",
        "stage2",
        ["mask.cuh", "work.causal_offset + 1", "work.causal_offset"],
        ERRORS,
        "",
    ),
    mutant(
        "causal limit is that of the first row",
        "stage2",
        ["mask.cuh", "first_row_limit + row_in_tile", "first_row_limit"],
        ERRORS,
        "",
    ),
    mutant("the sum is not rescaled", "stage2", ["softmax.cuh", "    sum *= alpha;\n", ""], ERRORS, ""),
    mutant(
        "O is not rescaled",
        "stage2",
        ["pv.cuh", "o[b].x[i] *= alpha.x[i]", "o[b].x[i] *= alpha.x[0] > 2.0f ? 0.0f : 1.0f"],
        ERRORS,
        "",
    ),
    mutant("the maximum is not kept", "stage1", ["softmax.cuh", "    maximum = raised;\n", ""], ERRORS, ""),
    mutant(
        "the maximum is that of one lane",
        "stage1",
        [
            "softmax.cuh",
            "raised = fmaxf(raised, __shfl_xor_sync(0xffffffffu, raised, distance));",
            "raised = fmaxf(raised, raised);",
        ],
        ERRORS,
        "",
    ),
    mutant(
        "the sum is that of one lane",
        "stage1",
        ["softmax.cuh", "total += __shfl_xor_sync(0xffffffffu, total, distance);", "total += total;"],
        ERRORS,
        "",
    ),
    mutant("log2(e) is missing", "stage2", ["softmax.cuh", " * kLog2E, kLeast", ", kLeast"], ERRORS, ""),
    mutant("K's scale is missing", "stage2", ["softmax.cuh", " * p.k_scale[head]", ""], ERRORS, ""),
    mutant(
        "the exponent is cut too late",
        "fast-exp",
        ["exp2.cuh", "kLeast = -126.0f", "kLeast = -200.0f"],
        ERRORS,
        "",
    ),
    // The maximum.
    mutant(
        "the maximum is that of the first tile",
        "stage2",
        [
            "softmax.cuh",
            "    const float alpha = Exponential::apply(factor * (maximum - raised));\n",
            "    if (maximum != kLowestMaximum) raised = maximum;\n    const float alpha = Exponential::apply(factor * (maximum - raised));\n",
        ],
        STRESS,
        "maximum-last",
    )
    .on(RISING),
    mutant(
        "the maximum in registers is that of the first tile",
        "stage3b",
        [
            "softmax_registers.cuh",
            "    const float alpha = Exponential::apply(factor * (maximum[row] - raised));\n",
            "    if (maximum[row] != kLowestMaximum) raised = maximum[row];\n    const float alpha = Exponential::apply(factor * (maximum[row] - raised));\n",
        ],
        STRESS,
        "maximum-last",
    )
    .on(RISING),
    mutant(
        "the maximum of a warp's row is that of the first tile",
        "v2b",
        [
            "consumer_streaming.cuh",
            "      const float raised = fmaxf(maximum[r], warp_maximum(s[r]));\n",
            "      const float raised = maximum[r] == kLowestMaximum ? warp_maximum(s[r]) : maximum[r];\n",
        ],
        STRESS,
        "maximum-last",
    )
    .on(RISING),
    mutant(
        "the maximum does not rise after a thousand keys",
        "stage2",
        [
            "softmax.cuh",
            "    const float alpha = raise_maximum(s);\n",
            "    const float before = maximum;\n    float alpha = raise_maximum(s);\n    if (first_key >= 1024) {\n      alpha = 1.0f;\n      maximum = before;\n    }\n",
        ],
        STRESS,
        "maximum-last",
    )
    .on(LONG_RISING),
    mutant("the maximum is never below zero", "stage2", ["softmax.cuh", "kLowestMaximum = -1.0e9f", "kLowestMaximum = 0.0f"], STRESS, "opposite-constants").on(NEGATIVE),
    mutant(
        "the maximum starts at what no normal score is below",
        "stage3b",
        ["softmax.cuh", "kLowestMaximum = -1.0e9f", "kLowestMaximum = -1.0e6f"],
        STRESS,
        "opposite-constants",
    )
    .on(NEGATIVE),
    mutant(
        "the maximum of a warp's row is never below zero",
        "v2b",
        ["softmax.cuh", "kLowestMaximum = -1.0e9f", "kLowestMaximum = 0.0f"],
        STRESS,
        "opposite-constants",
    )
    .on(NEGATIVE),
    mutant(
        "two lanes of four agree on a maximum",
        "stage3b",
        ["softmax_registers.cuh", "    raised = fmaxf(raised, __shfl_xor_sync(0xffffffffu, raised, 2));\n", ""],
        ERRORS,
        "",
    ),
    // The mask, and keys that are none.
    mutant(
        "keys behind the end count where nothing is causal",
        "stage2",
        ["mask.cuh", "    unmasked_keys = p.seq_kv;\n", "    unmasked_keys = p.causal ? p.seq_kv : 0x7fffffff;\n"],
        ROWS,
        "",
    ),
    mutant(
        "keys behind the end count with a score of zero",
        "stage3b",
        ["softmax_registers.cuh", "      const int limit = mask[row].row_limit - first_key - threadIdx.x % 4 * 2;\n", "      const int limit = mask[row].row_limit - first_key - threadIdx.x % 4 * 2 + 4;\n"],
        STRESS,
        "opposite-constants",
    )
    .on(NEGATIVE),
    mutant("one key behind the end counts", "stage2", ["mask.cuh", "    row_limit = p.seq_kv;\n", "    row_limit = p.seq_kv + 1;\n"], ROWS, "").on(SINGLE_ROW),
    mutant(
        "four keys behind the end count",
        "stage1",
        ["mask.cuh", "first_key + Traits::kTileK > unmasked_keys;", "first_key + Traits::kTileK > unmasked_keys + 4;"],
        ROWS,
        "",
    )
    .on(FEW_KEYS),
    mutant(
        "a tail of fewer than five keys is left out",
        "stage2",
        ["scheduler.cuh", "(keys + Traits::kTileK - 1) / Traits::kTileK", "(keys + Traits::kTileK - 5) / Traits::kTileK"],
        ROWS,
        "",
    )
    .on(SINGLE_ROW),
    mutant(
        "a tail of fewer than five keys is left out of registers",
        "stage3b",
        ["scheduler.cuh", "(keys + Traits::kTileK - 1) / Traits::kTileK", "(keys + Traits::kTileK - 5) / Traits::kTileK"],
        ROWS,
        "",
    )
    .on(SCALED),
    mutant(
        "fewer keys than a tile are none",
        "stage2",
        ["scheduler.cuh", "(keys + Traits::kTileK - 1) / Traits::kTileK", "(keys < Traits::kTileK ? 0 : keys + Traits::kTileK - 1) / Traits::kTileK"],
        ROWS,
        "",
    )
    .on(FEW_KEYS),
    mutant(
        "the second row of a lane is masked like the first",
        "stage3b",
        ["consumer_registers.cuh", "first_row + lane_row() + 8)}", "first_row + lane_row())}"],
        ERRORS,
        "",
    ),
    mutant("a warp's rows are all masked like its first", "v2b", ["consumer_streaming.cuh", "p, work, first_row + r).row_limit", "p, work, first_row).row_limit"], ERRORS, ""),
    mutant("a warp's mask lets one key too many", "v2b", ["consumer_streaming.cuh", "key >= row_limit[r]", "key > row_limit[r]"], ERRORS, ""),
    mutant(
        "the second key of a pair in registers is not masked",
        "stage3b",
        ["softmax_registers.cuh", "8 * i + 1 >= limit", "8 * i >= limit"],
        ERRORS,
        "",
    ),
    mutant(
        "queries are not aligned with the last key",
        "stage2",
        ["scheduler.cuh", "max(-p.seq_q, min(p.causal_offset, p.seq_kv))", "0"],
        ERRORS,
        "",
    )
    .on(CROSS),
    mutant(
        "more queries than keys are aligned with the first key",
        "stage2",
        ["scheduler.cuh", "max(-p.seq_q, min(p.causal_offset, p.seq_kv))", "max(0, min(p.causal_offset, p.seq_kv))"],
        ERRORS,
        "",
    )
    .on(UNSEEN),
    // Sums, P and the exponential.
    mutant("one key of a pair is summed twice", "stage2", ["softmax.cuh", "sum += rounded.x + rounded.y", "sum += 2.0f * rounded.x"], ERRORS, ""),
    mutant("one pair of lanes sums a row", "stage3b", ["softmax_registers.cuh", "    total += __shfl_xor_sync(0xffffffffu, total, 1);\n", "    total += total;\n"], ERRORS, ""),
    mutant("the sum of a warp's row is not rescaled", "v2b", ["consumer_streaming.cuh", "sum[r] = sum[r] * alpha + s[r]", "sum[r] = sum[r] + s[r]"], ERRORS, ""),
    mutant("half of a warp's O is not rescaled", "v2b", ["consumer_streaming.cuh", "        o[r][i].x *= alpha;\n", ""], ERRORS, ""),
    mutant("P of the lane beside", "v2b", ["consumer_streaming.cuh", "__shfl_sync(0xffffffffu, s[r], key)", "__shfl_sync(0xffffffffu, s[r], key ^ 1)"], ERRORS, ""),
    mutant("O in registers is rescaled by another row's factor", "stage3b", ["consumer_registers.cuh", "o[i][j] *= alpha[j / 2]", "o[i][j] *= alpha[0]"], ERRORS, ""),
    mutant(
        "P has six bits of fraction",
        "stage2",
        [
            "softmax.cuh",
            "{ return __float22half2_rn(p); }",
            "{\n    const Pair whole = __float22half2_rn(p);\n    const uint32_t cut = reinterpret_cast<const uint32_t&>(whole) & 0xfff0fff0u;\n    return reinterpret_cast<const Pair&>(cut);\n  }",
        ],
        ROWS,
        "",
    ),
    mutant("log2(e) is half a percent too large", "stage2", ["softmax.cuh", "kLog2E = 1.4426950408889634f", "kLog2E = 1.45f"], ROWS, ""),
    mutant("a coefficient of the exponential is wrong in its second digit", "fast-exp", ["exp2.cuh", "kFirst = 0.693283f", "kFirst = 0.72f"], ROWS, ""),
    mutant("2^0 is 7e-5 less than 1", "fast-exp", ["exp2.cuh", "kAtZero = 1.0f", "kAtZero = 0.999928f"], ROWS, "").on(LONG),
    mutant("the sum grows by 0.05% a tile", "stage2", ["softmax.cuh", "    sum *= alpha;\n", "    sum *= 1.0005f * alpha;\n"], SLOPE, "").on(LONG),
    mutant("O loses 0.02% a tile", "stage2", ["pv.cuh", "o[b].x[i] *= alpha.x[i]", "o[b].x[i] *= 0.9998f * alpha.x[i]"], SLOPE, "").on(LONG),
    mutant("P of the FP8 products is beyond what e4m3 holds", "ada", ["softmax_e4m3.cuh", "kBits = 8.0f", "kBits = 12.0f"], ERRORS, ""),
];
