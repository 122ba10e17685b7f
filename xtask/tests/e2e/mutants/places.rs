//! Mutants of which element goes where and by which factor: scales, fragments, offsets, rows and heads that are left out.

use super::{
    CROSS, ERRORS, FINITE, LARGE, LONG, Mutant, ROWS, SCALED, SINGLE_ROW, SLOPE, STRESS, UNSEEN, WIDE, mutant,
};

/// Each writes something else, or not everything.
pub const MUTANTS: &[Mutant] = &[
    mutant("V's scale is missing", "stage2", ["epilogue.cuh", "v_scale / row_sum", "1.0f / row_sum"], ERRORS, ""),
    mutant("gain of 5%", "stage2", ["epilogue.cuh", "v_scale / row_sum", "1.05f * v_scale / row_sum"], ERRORS, ""),
    mutant(
        "rows without keys divide by zero",
        "stage2",
        ["epilogue.cuh", "row_sum > 0.0f ? v_scale / row_sum : 0.0f", "v_scale / (row_sum - row_sum)"],
        FINITE,
        "NaN",
    ),
    mutant(
        "bytes of a pair are swapped",
        "stage2",
        [
            "dequantise.cuh",
            "static_cast<uint16_t>(codes)),",
            "static_cast<uint16_t>(codes << 8 | (codes >> 8 & 0xff))),",
        ],
        ERRORS,
        "",
    ),
    mutant("second half of a word is the first", "stage0", ["dequantise.cuh", "codes >> 16", "codes"], ERRORS, ""),
    mutant(
        "only every other 16 columns are stored",
        "stage2",
        ["epilogue.cuh", "i += Traits::kConsumerThreads", "i += 2 * Traits::kConsumerThreads"],
        FINITE,
        "NaN",
    ),
    mutant(
        "V is loaded without transposition",
        "stage3b",
        [
            "operands.cuh",
            "ptx::ldmatrix_x4_trans(r, tile.at(key + lane % 16, d + 16 * half",
            "ptx::ldmatrix_x4(r, tile.at(key + lane % 16, d + 16 * half",
        ],
        ERRORS,
        "",
    ),
    mutant(
        "K's fragments are swapped",
        "stage3b",
        ["operands.cuh", "b[step][i / 2][i % 2] = r[i]", "b[step][i % 2][i / 2] = r[i]"],
        ERRORS,
        "",
    ),
    mutant(
        "the order of the contraction differs between Q and K",
        "stage4",
        [
            "operands.cuh",
            "      a[0][i] = low(r[i]);\n      a[1][i] = high(r[i]);",
            "      a[0][i] = high(r[i]);\n      a[1][i] = low(r[i]);",
        ],
        ERRORS,
        "",
    ),
    // Factors.
    mutant("gain of 3%", "stage2", ["epilogue.cuh", "v_scale / row_sum", "1.03f * v_scale / row_sum"], SLOPE, ""),
    mutant("loss of half a percent", "stage3b", ["epilogue.cuh", "v_scale / row_sum", "0.995f * v_scale / row_sum"], SLOPE, ""),
    mutant("gain of 3% after FP8 products", "ada", ["epilogue.cuh", "v_scale / row_sum", "1.03f * v_scale / row_sum"], SLOPE, ""),
    mutant("a bias below every absolute limit", "stage2", ["epilogue.cuh", "__floats2half2_rn(low.x * factor, ", "__floats2half2_rn(low.x * factor + 0.004f, "], ROWS, ""),
    mutant("a softmax scale that is always 1/8", "stage2", ["softmax.cuh", "p.softmax_scale * ", "0.125f * "], ERRORS, "").on(SCALED),
    mutant("a softmax scale that is always 1/8, at D=128", "stage2", ["softmax.cuh", "p.softmax_scale * ", "0.125f * "], ROWS, "").on(WIDE),
    mutant("V's scale is that of the first head", "stage2", ["consumer.cuh", "p.v_scale[work.head]", "p.v_scale[0]"], ROWS, ""),
    mutant("K's scale is that of the first head", "stage2", ["softmax.cuh", "p.k_scale[head]", "p.k_scale[0]"], ROWS, ""),
    mutant("Q's scale is that of the head after", "stage3b", ["softmax.cuh", "p.q_scale[head]", "p.q_scale[head == 0 ? 1 : 0]"], ROWS, ""),
    mutant("outputs are no larger than 4096", "stage2", ["epilogue.cuh", "__floats2half2_rn(low.x * factor, ", "__floats2half2_rn(fminf(low.x * factor, 4096.0f), "], STRESS, "large-values").on(LARGE),
    mutant("outputs have seven bits of fraction", "stage2", ["epilogue.cuh", "      reinterpret_cast<uint4*>(p.out + first)[i] = reinterpret_cast<const uint4&>(halves);\n", "      uint4 cut = reinterpret_cast<const uint4&>(halves);\n      cut = make_uint4(cut.x & 0xfff8fff8u, cut.y & 0xfff8fff8u, cut.z & 0xfff8fff8u, cut.w & 0xfff8fff8u);\n      reinterpret_cast<uint4*>(p.out + first)[i] = cut;\n"], ROWS, ""),
    // Which rows, heads and tiles.
    mutant("the last row of every head is not written", "stage2", ["epilogue.cuh", "if (row >= rows) break;", "if (row >= rows - 1) break;"], FINITE, "NaN"),
    mutant("the last row of every head is not written from registers", "stage3b", ["consumer_registers.cuh", "if (row_of_head >= p.seq_q) break;", "if (row_of_head >= p.seq_q - 1) break;"], FINITE, "NaN"),
    mutant("the last tile of the last head is not written", "stage2", ["scheduler.cuh", "    body(work_of<Traits>(p, blockIdx.y, blockIdx.x));\n", "    if (blockIdx.x + 1 < gridDim.x || blockIdx.y + 1 < gridDim.y) body(work_of<Traits>(p, blockIdx.y, blockIdx.x));\n"], FINITE, "NaN"),
    mutant("a tile of every second head is not written", "stage2", ["scheduler.cuh", "    body(work_of<Traits>(p, blockIdx.y, blockIdx.x));\n", "    if (blockIdx.x != 1 || blockIdx.y % 2 == 0) body(work_of<Traits>(p, blockIdx.y, blockIdx.x));\n"], FINITE, "NaN"),
    mutant("heads beyond the sixteenth are left out", "stage2", ["scheduler.cuh", "    body(work_of<Traits>(p, blockIdx.y, blockIdx.x));\n", "    if (blockIdx.y < 16) body(work_of<Traits>(p, blockIdx.y, blockIdx.x));\n"], FINITE, "NaN").on(SINGLE_ROW),
    mutant("heads beyond the sixteenth see the first's keys", "stage2", ["loader.cuh", "const size_t head = static_cast<size_t>(work.head) * p.seq_kv", "const size_t head = static_cast<size_t>(work.head % 16) * p.seq_kv"], ERRORS, "").on(SINGLE_ROW),
    mutant("a head's offset has fifteen bits", "stage3b", ["loader.cuh", "const size_t head = static_cast<size_t>(work.head) * p.seq_kv * Traits::kHeadDim;", "const size_t head = (work.head * p.seq_kv * Traits::kHeadDim) & 0x7fff;"], ERRORS, "").on(SINGLE_ROW),
    mutant("a key's offset has sixteen bits", "stage0", ["loader.cuh", "const size_t offset = static_cast<size_t>(first_key) * Traits::kHeadDim;", "const size_t offset = static_cast<uint16_t>(first_key * Traits::kHeadDim);"], ROWS, "").on(LONG),
    mutant("a tile's offset has sixteen bits", "stage2", ["loader.cuh", "const size_t tile = static_cast<size_t>(t) * (Traits::kTileK * Traits::kHeadDim);", "const size_t tile = static_cast<uint16_t>(t * (Traits::kTileK * Traits::kHeadDim));"], ROWS, "").on(LONG),
    mutant("an offset of raw tiles has sixteen bits", "stage4", ["loader_raw.cuh", "const size_t offset = static_cast<size_t>(first_key) * Traits::kHeadDim;", "const size_t offset = static_cast<uint16_t>(first_key * Traits::kHeadDim);"], ROWS, "").on(LONG),
    mutant("tiles beyond the 64th are left out", "stage2", ["scheduler.cuh", "  work.key_tiles = (keys + Traits::kTileK - 1) / Traits::kTileK;\n", "  work.key_tiles = min(64, (keys + Traits::kTileK - 1) / Traits::kTileK);\n"], ROWS, "").on(LONG),
    mutant("keys beyond the 4096th are left out", "stage3b", ["scheduler.cuh", "  int keys = p.seq_kv;\n", "  int keys = min(4096, p.seq_kv);\n"], ROWS, "").on(LONG),
    mutant("a single query row is left out", "stage2", ["scheduler.cuh", "    body(work_of<Traits>(p, blockIdx.y, blockIdx.x));\n", "    if (p.seq_q > 1) body(work_of<Traits>(p, blockIdx.y, blockIdx.x));\n"], FINITE, "NaN").on(SINGLE_ROW),
    mutant("a single query row has another row's factor", "stage2", ["epilogue.cuh", "storage.row_factor[row];", "storage.row_factor[p.seq_q == 1 ? 1 : row];"], ROWS, "").on(SINGLE_ROW),
    mutant("rows that see no key are not written", "stage2", ["scheduler.cuh", "    body(work_of<Traits>(p, blockIdx.y, blockIdx.x));\n", "    const Work work = work_of<Traits>(p, blockIdx.y, blockIdx.x);\n    if (work.key_tiles > 0) body(work);\n"], FINITE, "NaN").on(UNSEEN),
    mutant("every head has the first's keys", "stage3b", ["loader.cuh", "k = p.k + head;", "k = p.k;"], ERRORS, ""),
    mutant("every head has the first's values", "stage2", ["loader.cuh", "v = p.v + head;", "v = p.v;"], ERRORS, ""),
    mutant("an output begins where keys would", "stage2", ["epilogue.cuh", "work.head) * p.seq_q + work.first_row", "work.head) * p.seq_kv + work.first_row"], FINITE, "NaN").on(CROSS),
    mutant("every second tile of a CTA is left out", "persistent", ["scheduler.cuh", "i += ctas)", "i += 2 * ctas)"], FINITE, "NaN"),
    mutant("the last tile of all is left out", "persistent", ["scheduler.cuh", "i < tiles;", "i < tiles - 1;"], FINITE, "NaN"),
    // Fragments.
    mutant("even and odd columns of V change places", "stage4", ["operands.cuh", "      const uint32_t even = ptx::prmt<0x6420>", "      const uint32_t even = ptx::prmt<0x7531>"], ERRORS, ""),
    mutant("half of K's columns are used twice", "stage4", ["operands.cuh", "b[1][i / 2][i % 2] = high(r[i]);", "b[1][i / 2][i % 2] = low(r[i]);"], ERRORS, ""),
    mutant("even columns of V stand for all, in FP8", "ada", ["consumer_fp8.cuh", "ptx::prmt<0x7531>", "ptx::prmt<0x6420>"], ERRORS, ""),
    mutant("signs are lost", "stage0", ["dequantise.cuh", "dequantise_word(uint32_t codes) {\n", "dequantise_word(uint32_t codes) {\n  codes &= 0x7f7f7f7fu;\n"], ERRORS, ""),
];
