//! The Hopper family without a GPU: every entry on the emulator against a float64 reference, under every schedule and with
//! every check; then with its synchronisation broken in one place, which must be found, or changed where that is harmless,
//! which must not. Leaves to others: bits that only the chip can say.

use std::sync::LazyLock;

use ptx_emulator::{Checks, Finding, Kind, Launch, Memory, MmaModel, Module, Params, Schedule, Severity, run};
use sdpa_kernel::hopper::{AttentionParams, QuantiseParams, ROTATED_CHANNELS, SCALE_TARGETS, Sizes, is_negated};
use sdpa_kernel::registry::find;
use xtask::build::build_all;
use xtask::layout::Layout;
use xtask::toolchain;

const SCHEDULES: [Schedule; 5] =
    [Schedule::Greedy, Schedule::RoundRobin, Schedule::Reverse, Schedule::Seeded(1), Schedule::Seeded(77)];

/// The family's PTX as the pipeline builds it.
static PTX: LazyLock<String> = LazyLock::new(|| {
    let layout = Layout::find().expect("the tests run in a checkout");
    let tools = toolchain::find_or_install(&layout.target, &|line| eprintln!("{line}")).expect("a CUDA compiler");
    let set = build_all(&layout, &tools, &[find("hopper").unwrap()], &["sm_90a".to_owned()]).expect("it builds");
    std::fs::read_to_string(set.built[0].dir.join("kernel.ptx")).expect("the PTX is kept")
});

/// One problem, the entry that is asked, and the size of the chip.
#[derive(Clone, Copy, Debug)]
struct Case {
    entry: &'static str,
    sizes: Sizes,
    /// Of the softmax: a wide one takes the kernel's exact paths.
    scale: f32,
    multiprocessors: u32,
}

const fn case(entry: &'static str, heads: u32, seq_q: u32, seq_kv: u32, causal: bool, scale: f32, chip: u32) -> Case {
    let head_dim = if entry.as_bytes()[11] == b'6' { 64 } else { 128 };
    Case { entry, sizes: Sizes { heads, seq_q, seq_kv, head_dim, causal }, scale, multiprocessors: chip }
}

impl Case {
    /// Rows of the entry's tile, threads and shared memory, which the module says of itself.
    fn config(&self, module: &Module) -> [u32; 3] {
        let bytes = module.global_symbol(&format!("{}_config", self.entry)).expect("every entry has one");
        let word = |i: usize| u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap());
        [word(4), word(6), word(7)]
    }

    fn offset(&self) -> i32 {
        self.sizes.seq_kv as i32 - self.sizes.seq_q as i32
    }
}

/// Multiples of 1/64 about normal, and their f16 bits: every such number is one.
fn draw(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i64 % 86
    };
    (0..count).map(|_| ((0..12).map(|_| next()).sum::<i64>() - 510) as f64 / 64.0 / 1.4).map(on_grid).collect()
}

fn on_grid(x: f64) -> f64 {
    (x * 64.0).round() / 64.0
}

fn half_bytes(values: &[f64]) -> Vec<u8> {
    let bits = |x: f64| {
        let wide = (x as f32).to_bits();
        let sign = (wide >> 16 & 0x8000) as u16;
        if x == 0.0 { sign } else { sign | (((wide >> 23 & 0xff) - 112) << 10 | wide >> 13 & 0x3ff) as u16 }
    };
    values.iter().flat_map(|x| bits(*x).to_le_bytes()).collect()
}

fn from_half(bits: u16) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// Each 64 channels times signs and Hadamard's matrix, over the root of 64: in halves, since with wide logits a code more or less
/// moves a weight by as much as the kernel may err.
fn rotated(values: &[f64]) -> Vec<f64> {
    let of_channels = |row: &[f64]| -> Vec<f64> {
        let signed = |(d, x): (usize, &f64)| if is_negated(d) { -x / 32.0 } else { x / 32.0 };
        let mut row: Vec<f64> = row.iter().enumerate().map(signed).collect();
        for step in [1, 2, 4, 8, 16, 32] {
            let partner = |d: usize| (row[d & !step], row[d | step]);
            let sum = |d: usize| if d & step == 0 { partner(d).0 + partner(d).1 } else { partner(d).0 - partner(d).1 };
            row = (0..row.len()).map(|d| rounded_to_half(sum(d))).collect();
        }
        row.into_iter().map(|x| 4.0 * x).collect()
    };
    values.chunks(ROTATED_CHANNELS).flat_map(of_channels).collect()
}

fn rounded_to_half(x: f64) -> f64 {
    let unit = 2f64.powi(if x == 0.0 { -24 } else { (x.abs().log2().floor() as i32).max(-14) - 10 });
    (x / unit).round_ties_even() * unit
}

/// Values whose columns have the mean over the keys of a head that the originals have.
fn with_means_of(values: &[f64], originals: &[f64], heads: usize, head_dim: usize) -> Vec<f64> {
    let of_head = |(values, originals): (&[f64], &[f64])| -> Vec<f64> {
        let keys = (values.len() / head_dim) as f64;
        let lost = |d: usize| {
            let column = originals.iter().zip(values).skip(d).step_by(head_dim);
            column.map(|(original, value)| original - value).sum::<f64>() / keys
        };
        let lost: Vec<f64> = (0..head_dim).map(lost).collect();
        values.iter().zip(lost.iter().cycle()).map(|(value, lost)| value + lost).collect()
    };
    let size = values.len() / heads;
    values.chunks(size).zip(originals.chunks(size)).flat_map(of_head).collect()
}

/// What is left of the values of each head after they were e4m3 codes with one scale.
fn quantised(values: &[f64], heads: usize, target: f32) -> Vec<f64> {
    let code = |x: f32| {
        let x = f64::from(x).clamp(-448.0, 448.0);
        let unit = 2f64.powi(if x == 0.0 { -9 } else { (x.abs().log2().floor() as i32).max(-6) - 3 });
        (x / unit).round_ties_even() * unit
    };
    let of_head = |head: &[f64]| -> Vec<f64> {
        let largest = head.iter().fold(0f64, |m, x| m.max(x.abs())) as f32;
        head.iter().map(|x| code(*x as f32 * (target / largest)) * f64::from(largest / target)).collect()
    };
    values.chunks(values.len() / heads).flat_map(of_head).collect()
}

/// Inputs of a case and the reference of its output.
struct Problem {
    case: Case,
    inputs: [Vec<f64>; 3],
    reference: Vec<f64>,
}

impl Problem {
    fn new(case: Case) -> Problem {
        let Sizes { heads, seq_q, seq_kv, head_dim, causal } = case.sizes;
        let lengths = [seq_q, seq_kv, seq_kv].map(|rows| (heads * rows * head_dim) as usize);
        let inputs: [Vec<f64>; 3] = std::array::from_fn(|i| draw(lengths[i], 7 + i as u64));
        let d = head_dim as usize;
        let coded = |i: usize, values: &[f64]| quantised(values, heads as usize, SCALE_TARGETS[i]);
        let [q, k] = [0, 1].map(|i| coded(i, &rotated(&inputs[i])));
        let v = with_means_of(&coded(2, &inputs[2]), &inputs[2], heads as usize, d);
        let row =
            |of: &[f64], rows: u32, head: u32, i: usize| of[(head as usize * rows as usize + i) * d..][..d].to_vec();
        let mut reference = Vec::with_capacity(q.len());
        for (head, i) in (0..heads).flat_map(|head| (0..seq_q as usize).map(move |i| (head, i))) {
            let seen = if causal { (i as i32 + case.offset() + 1).clamp(0, seq_kv as i32) } else { seq_kv as i32 };
            let query = row(&q, seq_q, head, i);
            let dot = |j: usize| row(&k, seq_kv, head, j).iter().zip(&query).map(|(x, y)| x * y).sum::<f64>();
            let scores: Vec<f64> = (0..seen as usize).map(|j| dot(j) * f64::from(case.scale)).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let (mut out, total) = (vec![0.0; d], weights.iter().sum::<f64>());
            for (j, weight) in weights.iter().enumerate() {
                out.iter_mut().zip(row(&v, seq_kv, head, j)).for_each(|(out, v)| *out += weight / total * v);
            }
            reference.extend(out);
        }
        Problem { case, inputs, reference }
    }

    /// Runs quantiser and attention; the largest and the mean error, NaN as infinite, and what was found.
    fn solve(&self, module: &Module, schedule: Schedule) -> (f64, f64, Vec<Finding>) {
        let Case { entry, sizes, scale, multiprocessors } = self.case;
        let [tile_q, threads, shared] = self.case.config(module);
        let mut memory = Memory::new(module);
        let originals = ["q", "k", "v"].iter().zip(&self.inputs);
        let sources: Vec<_> = originals.map(|(n, x)| memory.alloc_from(n, &half_bytes(x)).unwrap().address()).collect();
        let images = sizes.image_bytes().map(|bytes| memory.alloc("image", bytes).unwrap().address());
        let scales = memory.alloc("scales", 4 * sizes.scale_words()).unwrap().address();
        let out = memory.alloc("out", 2 * self.reference.len()).unwrap();
        let mut findings = Vec::new();
        let mut launch = |name: &str, geometry: sdpa_kernel::hopper::Geometry, shared: u32, params: &[u8]| {
            let kernel = module.entry(name).unwrap_or_else(|error| panic!("{error}"));
            let params = Params::new().bytes(8, params).finish();
            let mut launch = Launch::new(geometry.grid, [geometry.threads, 1, 1], params);
            launch.cluster = [geometry.cluster, 1, 1];
            (launch.dynamic_shared_bytes, launch.schedule, launch.checks) = (shared, schedule, Checks::all());
            launch.mma_model = MmaModel::Sm90;
            launch.limits.idle_turns = 50;
            findings.extend(run(&kernel, &memory, &launch).unwrap_or_else(|error| panic!("{error}")).findings);
        };
        let sources = [sources[0], sources[1], sources[2]];
        let quantise = QuantiseParams { sources, images, scales, seq_q: sizes.seq_q, seq_kv: sizes.seq_kv };
        let (name, most) = if sizes.head_dim == 64 { ("quantise_d64", 1024) } else { ("quantise_d128", 512) };
        launch(name, sizes.quantise_geometry(most), 0, &quantise.to_bytes());
        let (out_at, causal_offset) = (out.address(), self.case.offset());
        let attend =
            AttentionParams { images, scales, out: out_at, sizes, causal_offset, softmax_scale: scale, tile_q };
        launch(entry, sizes.attention_geometry(tile_q, threads, multiprocessors), shared, &attend.to_bytes());
        let bytes = memory.read(out).unwrap();
        let values = bytes.as_chunks::<2>().0.iter().map(|b| from_half(u16::from_le_bytes(*b)));
        let errors = values.zip(&self.reference).map(|(x, r)| (x - r).abs());
        let errors: Vec<f64> = errors.map(|e| if e.is_nan() { f64::INFINITY } else { e }).collect();
        let largest = errors.iter().copied().fold(0.0, f64::max);
        (largest, errors.iter().sum::<f64>() / errors.len() as f64, findings)
    }
}

const SCALE: f32 = 0.125;
/// Logits so wide that the reference is subtracted ahead of the multiplication.
const WIDE: f32 = 1.0;

/// Shapes that end inside a tile, rows that see nothing, several items a CTA, and wide logits of few keys and of many.
const CASES: [Case; 16] = [
    case("attention_d64_1x1", 1, 64, 128, false, SCALE, 132),
    case("attention_d64_1x1", 2, 100, 77, true, SCALE, 132),
    case("attention_d64_1x2", 1, 1, 1, false, SCALE, 132),
    case("attention_d64_1x2", 2, 130, 700, false, SCALE, 3),
    case("attention_d64_1x2", 1, 200, 200, true, WIDE, 1),
    case("attention_d64_2x2", 1, 300, 520, true, SCALE, 2),
    case("attention_d64_2x2", 2, 65, 129, false, SCALE, 132),
    case("attention_d64_4x1", 1, 300, 700, true, SCALE, 1),
    case("attention_d64_4x1", 2, 257, 255, false, WIDE, 132),
    case("attention_d64_4x1", 1, 130, 900, true, WIDE, 1),
    case("attention_d128_1x2", 2, 65, 300, true, 0.09, 1),
    case("attention_d128_2x1", 1, 200, 900, false, 0.09, 1),
    case("attention_d128_2x1", 1, 129, 127, true, WIDE, 132),
    case("attention_d128_3x1", 1, 300, 700, true, 0.09, 1),
    case("attention_d128_3x1", 1, 193, 300, false, 0.09, 132),
    case("attention_d128_3x1", 1, 200, 500, false, WIDE, 1),
];

fn text(findings: &[Finding]) -> String {
    findings.iter().map(|f| format!("{f}\n")).collect()
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn every_entry_is_right_and_clean_under_every_schedule() {
    let module = Module::parse(&PTX).expect("the PTX parses");
    for case in CASES {
        let problem = Problem::new(case);
        let mut first = None;
        for schedule in SCHEDULES {
            let (largest, mean, findings) = problem.solve(&module, schedule);
            assert!(findings.is_empty(), "{case:?} {schedule:?}\n{}", text(&findings));
            // Against the values that e4m3 left of the inputs. Few keys decide a row of wide logits, over which the errors of
            // codes do not average out.
            let (most, most_in_mean) = if case.scale == WIDE { (0.1, 0.005) } else { (0.06, 0.003) };
            assert!(largest < most && mean < most_in_mean, "{case:?} {schedule:?}: {largest} {mean}");
            assert_eq!(*first.get_or_insert(largest), largest, "{case:?}: another result under {schedule:?}");
        }
    }
}

/// What to do to the `n`th line of an entry that contains a text.
enum Change {
    Drop(&'static str, usize),
    Replace(&'static str, usize, &'static str, &'static str),
}
use Change::{Drop, Replace};

/// The PTX with one line of `entry` changed.
fn mutate(entry: &str, change: &Change) -> String {
    let start = PTX.find(&format!(".entry {entry}(")).expect("the entry exists");
    let (needle, wanted) = match change {
        Drop(needle, n) | Replace(needle, n, ..) => (*needle, *n),
    };
    let mut out = PTX[..start].to_owned();
    let mut seen = 0;
    let mut done = false;
    for line in PTX[start..].split_inclusive('\n') {
        let hit = !line.trim_start().starts_with("//") && line.contains(needle);
        seen += usize::from(hit);
        match change {
            _ if !hit || seen != wanted + 1 => out.push_str(line),
            Drop(..) => done = true,
            Replace(_, _, from, to) => {
                assert!(line.contains(from), "{line:?} has no {from:?}");
                out.push_str(&line.replacen(from, to, 1));
                done = true;
            }
        }
    }
    assert!(done, "`{entry}` has no line {wanted} with {needle:?}");
    out
}

const SPLIT: &str = "attention_d64_1x2";
const ROWS: &str = "attention_d64_2x2";
const QUANTISE: &str = "quantise_d64";

/// Problems that reach every part of an entry: tiles in a ring that is used twice, few keys, and wide logits.
fn problems(entry: &str) -> Vec<Problem> {
    let cases = match entry {
        ROWS => vec![case(ROWS, 1, 256, 256, true, SCALE, 1), case(ROWS, 1, 300, 800, true, SCALE, 1)],
        QUANTISE => vec![case("attention_d64_1x1", 1, 300, 300, false, SCALE, 132)],
        _ => vec![
            case(SPLIT, 1, 130, 1200, false, SCALE, 2),
            case(SPLIT, 1, 200, 200, true, SCALE, 1),
            case(SPLIT, 1, 64, 700, false, WIDE, 2),
        ],
    };
    cases.into_iter().map(Problem::new).collect()
}

const TRY: &str = "mbarrier.try_wait.parity.shared::cta.b64 done, [";
/// In its place: a wait that ends at once.
const AT_ONCE: &str = "setp.eq.u32 done, 0, 0; // [";
const EXPECT: &str = "mbarrier.arrive.expect_tx";
const ARRIVE: &str = "mbarrier.arrive.shared";
const INIT: &str = "mbarrier.init.shared";
const COPY: &str = "cp.async.bulk.shared";
const FENCE: &str = "wgmma.fence.sync";
const COMMIT: &str = "wgmma.commit_group";
const WAIT: &str = "wgmma.wait_group";
const PRODUCT: &str = "wgmma.mma_async";
const SYNC: &str = "\tbar.sync";

/// What stands for a race, whichever of the two came first.
const RACE: &[Kind] =
    &[Kind::RaceReadAfterWrite, Kind::RaceWriteAfterRead, Kind::RaceWriteWrite, Kind::InFlight, Kind::MbarrierMisuse];
const STUCK: &[Kind] = &[Kind::NoProgress, Kind::Deadlock];
const PROXY: &[Kind] = &[Kind::MissingProxyFence];
const REGISTER: &[Kind] = &[Kind::RegisterInFlight];
const UNFENCED: &[Kind] = &[Kind::MissingFence];
const NEVER: &[Kind] = &[Kind::UninitialisedStore, Kind::UninitialisedBranch];
const CLUSTER: &[Kind] = &[Kind::ClusterMisuse];
const COUNTED: &[Kind] = &[Kind::MbarrierMisuse, Kind::NoProgress, Kind::RaceWriteAfterRead];

/// What is wrong, how it is found, and how an instruction begins that the finding names.
type Mutant = (&'static str, Change, &'static [Kind], &'static str);

const MUTANTS: [Mutant; 66] = [
    // Barriers that are not there, count wrongly, or are not visible.
    (SPLIT, Drop(INIT, 1), COUNTED, "mbarrier"),
    (SPLIT, Drop(INIT, 9), COUNTED, "mbarrier"),
    (SPLIT, Drop(INIT, 10), COUNTED, "mbarrier"),
    (SPLIT, Replace(INIT, 1, "], %r", "], 3; //"), COUNTED, "mbarrier"),
    (SPLIT, Replace(INIT, 1, "], %r", "], 5; //"), STUCK, "mbarrier.try_wait"),
    (SPLIT, Replace(INIT, 10, "], %r", "], 2; //"), STUCK, "mbarrier.try_wait"),
    (SPLIT, Drop("fence.mbarrier_init", 1), PROXY, COPY),
    (SPLIT, Drop("fence.proxy.async", 0), PROXY, PRODUCT),
    // Named barriers.
    (SPLIT, Drop(SYNC, 0), RACE, "mbarrier"),
    (SPLIT, Drop(SYNC, 1), RACE, "ld.shared"),
    (SPLIT, Drop(SYNC, 2), RACE, "ld.shared"),
    (SPLIT, Drop(SYNC, 3), RACE, "mbarrier"),
    (SPLIT, Drop(SYNC, 4), RACE, "mbarrier"),
    (SPLIT, Drop("\tbar.arrive", 0), STUCK, "bar.sync"),
    (SPLIT, Drop("\tbar.arrive", 1), STUCK, "bar.sync"),
    // Products: fences, groups, waits.
    (SPLIT, Drop(FENCE, 0), UNFENCED, PRODUCT),
    (SPLIT, Drop(FENCE, 1), UNFENCED, PRODUCT),
    (SPLIT, Drop(FENCE, 3), UNFENCED, PRODUCT),
    (SPLIT, Drop(FENCE, 4), UNFENCED, PRODUCT),
    (SPLIT, Drop(FENCE, 5), UNFENCED, PRODUCT),
    (SPLIT, Drop(FENCE, 6), UNFENCED, PRODUCT),
    (SPLIT, Drop(COMMIT, 0), NEVER, "st.global"),
    (SPLIT, Drop(COMMIT, 2), NEVER, "st.global"),
    (SPLIT, Drop(COMMIT, 3), RACE, COPY),
    (SPLIT, Drop(COMMIT, 4), RACE, COPY),
    (SPLIT, Drop(COMMIT, 5), RACE, COPY),
    (SPLIT, Drop(COMMIT, 6), RACE, COPY),
    (SPLIT, Drop(WAIT, 0), REGISTER, ""),
    (SPLIT, Drop(WAIT, 1), REGISTER, ""),
    (SPLIT, Drop(WAIT, 2), REGISTER, ""),
    (SPLIT, Drop(WAIT, 3), REGISTER, ""),
    (SPLIT, Drop(WAIT, 4), REGISTER, ""),
    (SPLIT, Drop(WAIT, 5), REGISTER, ""),
    (SPLIT, Replace(WAIT, 0, " 0;", " 1;"), REGISTER, ""),
    (SPLIT, Replace(WAIT, 2, " 0;", " 1;"), REGISTER, ""),
    (SPLIT, Replace(WAIT, 3, " 0;", " 1;"), REGISTER, ""),
    // Slots that are never given back, or before they are read.
    (SPLIT, Drop(ARRIVE, 2), STUCK, "mbarrier.try_wait"),
    (SPLIT, Drop(ARRIVE, 4), STUCK, "mbarrier.try_wait"),
    (SPLIT, Drop(ARRIVE, 5), STUCK, "mbarrier.try_wait"),
    (SPLIT, Drop(ARRIVE, 6), STUCK, "mbarrier.try_wait"),
    (SPLIT, Drop(ARRIVE, 7), STUCK, "mbarrier.try_wait"),
    // Who waits in vain is the producer, somewhere in the loop of its wait.
    (SPLIT, Drop(ARRIVE, 8), STUCK, ""),
    (ROWS, Drop(ARRIVE, 0), STUCK, "mbarrier.try_wait"),
    (SPLIT, Replace(TRY, 11, TRY, AT_ONCE), RACE, COPY),
    (SPLIT, Replace(TRY, 12, TRY, AT_ONCE), RACE, COPY),
    (SPLIT, Replace(TRY, 10, TRY, AT_ONCE), RACE, COPY),
    // Copies: announced, made, waited for.
    (SPLIT, Drop(EXPECT, 0), STUCK, "mbarrier.try_wait"),
    (SPLIT, Drop(EXPECT, 1), STUCK, "mbarrier.try_wait"),
    (SPLIT, Replace(EXPECT, 1, "], %r", "], 8176; //"), STUCK, "mbarrier.try_wait"),
    (SPLIT, Replace(EXPECT, 2, "], %r", "], 8208; //"), STUCK, "mbarrier.try_wait"),
    (SPLIT, Drop(COPY, 1), STUCK, "mbarrier.try_wait"),
    (SPLIT, Replace(TRY, 0, TRY, AT_ONCE), RACE, PRODUCT),
    (SPLIT, Replace(TRY, 3, TRY, AT_ONCE), RACE, PRODUCT),
    (SPLIT, Replace(TRY, 4, TRY, AT_ONCE), RACE, PRODUCT),
    (SPLIT, Replace(TRY, 6, TRY, AT_ONCE), RACE, PRODUCT),
    (SPLIT, Replace(TRY, 7, TRY, AT_ONCE), RACE, PRODUCT),
    (SPLIT, Replace(TRY, 8, TRY, AT_ONCE), RACE, PRODUCT),
    (SPLIT, Replace(TRY, 9, TRY, AT_ONCE), RACE, PRODUCT),
    (SPLIT, Replace(TRY, 8, "], %r", "], 0; //"), RACE, ""),
    // Clusters.
    (QUANTISE, Replace("barrier.cluster.arrive.aligned", 0, "arrive", "arrive.relaxed"), RACE, "ld.shared"),
    (QUANTISE, Drop("st.shared::cluster", 0), NEVER, ""),
    (QUANTISE, Drop("barrier.cluster.wait", 0), CLUSTER, "st.shared::cluster"),
    // Of the other operands, and of what rounding V loses.
    (QUANTISE, Replace("barrier.cluster.arrive.aligned", 1, "arrive", "arrive.relaxed"), RACE, "ld.shared"),
    (QUANTISE, Replace("barrier.cluster.arrive.aligned", 2, "arrive", "arrive.relaxed"), RACE, "ld.shared"),
    (QUANTISE, Drop("st.shared::cluster", 1), NEVER, ""),
    (QUANTISE, Drop("st.shared::cluster", 2), NEVER, ""),
];

/// What changes nothing that matters, and why.
const EQUIVALENT: [(&str, Change); 12] = [
    // No copy tells these barriers anything.
    (SPLIT, Drop("fence.mbarrier_init", 0)),
    // The registers are those of a product in flight, and of a fence before that.
    (SPLIT, Drop(FENCE, 2)),
    // The next group takes both.
    (SPLIT, Drop(COMMIT, 1)),
    // Each lane arrives at the named barrier behind it.
    (SPLIT, Drop("bar.warp.sync", 0)),
    (SPLIT, Drop("bar.warp.sync", 1)),
    // The first reuse of a slot of K has waited for the same.
    (SPLIT, Drop(SYNC, 5)),
    // Its tile was waited for by the product before.
    (SPLIT, Replace(TRY, 5, TRY, AT_ONCE)),
    // With one row group there is no tile that a warpgroup does not look at.
    (SPLIT, Drop(ARRIVE, 0)),
    (SPLIT, Replace(TRY, 1, TRY, AT_ONCE)),
    // Wider than the fence has to be.
    (SPLIT, Replace("fence.proxy.async", 0, ".shared::cta", "")),
    // Waits for what the wait for none waits for.
    (SPLIT, Replace("fence.mbarrier_init", 1, "fence.mbarrier_init.release.cluster", "fence.proxy.async")),
    (QUANTISE, Drop("griddepcontrol.launch_dependents", 0)),
];

/// What the schedules find, and the largest error of all.
fn found(entry: &str, ptx: &str) -> (Vec<Finding>, f64) {
    let module = Module::parse(ptx).expect("the mutant parses");
    let (mut all, mut worst) = (Vec::new(), 0f64);
    for problem in problems(entry) {
        for schedule in [Schedule::Greedy, Schedule::Reverse, Schedule::Seeded(77)] {
            let (largest, _, findings) = problem.solve(&module, schedule);
            worst = worst.max(largest);
            all.extend(findings);
        }
    }
    (all, worst)
}

#[test]
#[ignore = "slow: .ci/run runs it by name"]
fn every_break_of_the_synchronisation_is_found() {
    let mut lost = Vec::new();
    for (entry, change, kinds, instruction) in &MUTANTS {
        let ptx = mutate(entry, change);
        let (findings, _) = found(entry, &ptx);
        let named = |f: &Finding| f.sites.iter().any(|site| site.instruction.starts_with(instruction));
        if !findings.iter().any(|f| f.severity == Severity::Error && kinds.contains(&f.kind) && named(f)) {
            let told: Vec<_> = findings
                .iter()
                .map(|f| (f.kind, f.sites.iter().map(|s| s.instruction.clone()).collect::<Vec<_>>()))
                .collect();
            lost.push(format!("{} wants {kinds:?} at {instruction:?}: {told:?}", name(change)));
        }
    }
    assert!(lost.is_empty(), "{} of {}:\n{}", lost.len(), MUTANTS.len(), lost.join("\n"));
}

fn name(change: &Change) -> String {
    match change {
        Drop(needle, n) => format!("without {needle:?} {n}"),
        Replace(needle, n, from, to) => format!("{needle:?} {n}: {to:?} for {from:?}"),
    }
}

#[test]
#[ignore = "slow: .ci/run runs it by name"]
fn what_changes_nothing_is_not_reported() {
    for (entry, change) in &EQUIVALENT {
        let (findings, worst) = found(entry, &mutate(entry, change));
        assert!(findings.is_empty() && worst < 0.08, "{}: {worst}\n{}", name(change), text(&findings));
    }
}
