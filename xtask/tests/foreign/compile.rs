//! Compiling a user's source: which entries are found in it, what is reported of them, and what is refused.

use std::path::Path;
use std::time::{Duration, Instant};

use kbench::key::BadKey;
use kbench::variant::Language;
use xtask::bounded::Limits;
use xtask::foreign::compile::{Compiled, LIMITS, Named, Source, compile, compile_within};
use xtask::layout::Layout;
use xtask::toolchain::{self, Toolchain};

/// A gate file's folder, and a cache of its own.
pub struct Room {
    pub dir: tempfile::TempDir,
    pub layout: Layout,
    pub tools: Toolchain,
}

/// What a test may vary besides the source.
#[derive(Default)]
struct With<'a> {
    defines: &'a [(&'a str, &'a str)],
    flags: &'a [&'a str],
    include: &'a [&'a str],
}

impl Room {
    pub fn new() -> Room {
        let checkout = Layout::find().expect("the tests run in a checkout");
        let tools = toolchain::find_or_install(&checkout.target, &|line| eprintln!("{line}")).expect("a CUDA compiler");
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("gate")).unwrap();
        let layout = Layout::at(checkout.root, dir.path().join("target"));
        Room { dir, layout, tools }
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join("gate").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn try_with(&self, file: &str, entries: &[&str], with: &With<'_>, limits: Limits) -> Result<Compiled, String> {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let defines: Vec<_> = with.defines.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let named: Vec<Named> =
            owned(entries).into_iter().map(|text| Named { text, threads: 64, dynamic_smem_bytes: 128 }).collect();
        let (flags, include) = (owned(with.flags), owned(with.include));
        let folder = self.dir.path().join("gate");
        let language = match file.rsplit_once('.').unwrap().1 {
            "ptx" => Language::Ptx,
            "cubin" => Language::Cubin,
            _ => Language::Cuda,
        };
        let source = Source {
            folder: &folder,
            file,
            language,
            defines: &defines,
            flags: &flags,
            include: &include,
            entries: &named,
            triton: None,
        };
        match compile_within(&self.layout, &self.tools, "v", &source, "sm_89", limits) {
            Ok(Ok(compiled)) => Ok(compiled),
            Ok(Err(failure)) => Err(format!("FAIL {}", failure.error)),
            Err(error) => match error.downcast::<BadKey>() {
                Ok(refused) => Err(format!("REFUSED {refused}")),
                Err(error) => panic!("{error:#}"),
            },
        }
    }

    fn compile(&self, entries: &[&str]) -> Result<Compiled, String> {
        self.try_with("kernel.cu", entries, &With::default(), LIMITS)
    }
}

/// `kernel.cu` with nothing else that could be said of it.
fn source<'a>(folder: &'a Path, entries: &'a [Named]) -> Source<'a> {
    Source {
        folder,
        file: "kernel.cu",
        language: Language::Cuda,
        defines: &[],
        flags: &[],
        include: &[],
        entries,
        triton: None,
    }
}

const KERNELS: &str = r#"
#include <cuda_fp16.h>
namespace lib {
enum class Mode { A, B = 5 };
constexpr int WIDE = 512;
using Element = float;
template <int N, bool C, Mode M, typename T = float> __global__ void k(T* p, int n) {
  if (threadIdx.x < n) p[threadIdx.x] = T(N + C + (int)M);
}
template <int N> static __global__ void hidden(float* p) { p[0] = N; }
}
extern "C" __global__ void __launch_bounds__(128) plain(const half* x, float* y, int n) {
  if (threadIdx.x < n) y[threadIdx.x] = __half2float(x[threadIdx.x]);
}
__global__ void over(float* p) { *p = 1; }
__global__ void over(int* p) { *p = 1; }
namespace a { namespace { __global__ void anonymous(int* p) { *p = 1; } template <int N> __global__ void t(int* p) { *p = N; } }
__global__ void inner(int* p) { *p = 2; } }
"#;

#[test]
fn entries_are_found_by_symbol_name_and_template_id() {
    let room = Room::new();
    room.write("kernel.cu", KERNELS);
    let table = [
        ("plain", "plain"),
        ("_Z4overPf", "_Z4overPf"),
        ("_Z4overPi", "_Z4overPi"),
        ("a::inner", "_ZN1a5innerEPi"),
        ("inner", "_ZN1a5innerEPi"),
        ("lib::k<256, true, lib::Mode::B, __half>", "_ZN3lib1kILi256ELb1ELNS_4ModeE5E6__halfEEvPT2_i"),
        ("lib::k< lib::WIDE/2 , 1, (lib::Mode)5, lib::Element>", "_ZN3lib1kILi256ELb1ELNS_4ModeE5EfEEvPT2_i"),
        ("lib::k<256u, true, lib::Mode::B>", "_ZN3lib1kILi256ELb1ELNS_4ModeE5EfEEvPT2_i"),
        ("lib::k<8, false, lib::Mode::A>", "_ZN3lib1kILi8ELb0ELNS_4ModeE0EfEEvPT2_i"),
        ("lib::hidden<7>", "_ZN3lib6hiddenILi7EEEvPf"),
    ];
    let entries: Vec<&str> = table.iter().map(|(text, _)| *text).chain(["anonymous", "a::t<3>"]).collect();
    let compiled = room.compile(&entries).unwrap();
    for (text, symbol) in table {
        assert_eq!(compiled.symbols[text], symbol, "{text}");
    }
    assert!(compiled.symbols["anonymous"].ends_with("9anonymousEPi"), "{:?}", compiled.symbols);
    assert!(compiled.symbols["a::t<3>"].contains("1tILi3EEEvPi"), "{:?}", compiled.symbols);
    let record = &compiled.record;
    assert_eq!((record.global_bytes, record.entries.len()), (0, 10), "{record:#?}");
    let launch = &record.entries[0].launch;
    assert_eq!((launch.entry.as_str(), launch.threads, launch.dynamic_smem_bytes), ("plain", 64, 128));
    assert!(record.entries.iter().all(|e| e.gated && e.resources.registers > 0 && e.code_sha256.len() == 64));
    assert_eq!(compiled.files.keys().collect::<Vec<_>>(), ["kernel.cu"]);
    let plain = compiled.entries.iter().find(|e| e.name == "plain").unwrap();
    assert_eq!((plain.params.len(), plain.max_block), (3, Some([128, 1, 1])));
    let ptx = std::fs::read_to_string(compiled.dir.join("kernel.ptx")).unwrap();
    assert!(!ptx.contains("gate_entry"), "the helpers are taken out");
    let again = room.compile(&entries).unwrap();
    assert!(again.cached && !compiled.cached);
    assert_eq!((again.record, again.symbols), (compiled.record, compiled.symbols));
}

#[test]
fn what_is_unknown_or_ambiguous_is_refused_with_what_there_is() {
    let room = Room::new();
    room.write("kernel.cu", KERNELS);
    let refused = |entry: &str| room.compile(&[entry]).unwrap_err();
    assert_eq!(
        refused("over"),
        "REFUSED variants.v.entry: kernel.cu: `over` may be any of `_Z4overPf` (over(float*)), `_Z4overPi` (over(int*)): \
         give a symbol"
    );
    assert!(refused("plane").starts_with("REFUSED variants.v.entry: kernel.cu: there is no `plane`: there are "));
    let unknown = refused("lib::kk<3>");
    assert!(unknown.starts_with("REFUSED variants.v.entry: `lib::kk<3>`: "), "{unknown}");
    assert!(unknown.ends_with("`over`, `a::anonymous`, `a::t<N>`, `a::inner`"), "{unknown}");
    assert!(unknown.contains("kernel.cu declares `lib::k<N, C, M, T>`, `lib::hidden<N>`, `plain`"), "{unknown}");
    assert!(refused("lib::k<true>").starts_with("REFUSED variants.v.entry: `lib::k<true>`: "), "too few arguments");
    assert!(unknown.lines().count() == 1);
}

#[test]
fn macros_flags_and_includes_reach_the_compiler_and_the_key() {
    let room = Room::new();
    room.write(
        "kernel.cu",
        "#include \"sub/a.cuh\"\n#include <shared.cuh>\n__global__ void k(float* p) { *p = VALUE + A + S; }\n",
    );
    room.write("sub/a.cuh", "#define A 1\n");
    room.write("unused.cuh", "");
    room.write("../lib/shared.cuh", "#define S 2\n");
    let build = |value: &str, flags: &[&str]| {
        let with = With { defines: &[("VALUE", value)], flags, include: &["../lib"] };
        room.try_with("kernel.cu", &["k"], &with, LIMITS).unwrap()
    };
    let first = build("7", &[]);
    assert_eq!(first.files.keys().collect::<Vec<_>>(), ["../lib/shared.cuh", "kernel.cu", "sub/a.cuh"]);
    assert!(std::fs::read_to_string(first.dir.join("kernel.ptx")).unwrap().contains("1092616192"), "10.0");
    let mut keys = vec![first.record.key, build("8", &[]).record.key, build("7", &["--use_fast_math"]).record.key];
    room.write("unused.cuh", "int x;");
    assert!(build("7", &[]).cached);
    room.write("sub/a.cuh", "#define A 3\n");
    keys.push(build("7", &[]).record.key);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 4);
    let refused = |with: With<'_>| room.try_with("kernel.cu", &["k"], &with, LIMITS).unwrap_err();
    let unknown = refused(With { include: &["../lib", "../none"], ..With::default() });
    assert_eq!(unknown, "REFUSED variants.v.include[1]: there is no folder `../none` beside the gate file");
    let missing = refused(With::default());
    assert!(missing.starts_with("FAIL nvcc: kernel.cu:2:10: fatal error: shared.cuh"), "{missing}");
}

#[test]
fn files_from_elsewhere_are_refused() {
    let room = Room::new();
    room.write("kernel.cu", "#include \"../beside.h\"\n__global__ void k(float* p) { *p = 1; }\n");
    room.write("../beside.h", "");
    let refused = room.compile(&["k"]).unwrap_err();
    assert!(refused.starts_with("REFUSED variants.v.source: kernel.cu includes /"), "{refused}");
    assert!(refused.contains("/beside.h, which is outside the gate file's folder"), "{refused}");
    let refused = |file: &str| room.try_with(file, &["k"], &With::default(), LIMITS).unwrap_err();
    assert!(refused("../beside.h").starts_with("REFUSED variants.v.source: `../beside.h` is outside"));
    assert!(refused("none.cu").starts_with("REFUSED variants.v.source: there is no file `none.cu`"));
    room.write("empty.cu", "template <int N> __global__ void k(float* p) { *p = N; }\n");
    assert_eq!(refused("empty.cu"), "REFUSED variants.v.source: empty.cu has no kernel: empty.cu declares `k<N>`");
}

#[test]
fn ptx_is_assembled_as_it_is() {
    let room = Room::new();
    room.write("kernel.cu", "__device__ int state;\n__global__ void k(float* p) { atomicAdd(p, 1.0f); state = 1; }\n");
    let compiled = room.compile(&["k"]).unwrap();
    assert!(compiled.record.adds_floats_atomically);
    let ptx = std::fs::read_to_string(compiled.dir.join("kernel.ptx")).unwrap();
    room.write("ready.ptx", &ptx);
    let ready = room.try_with("ready.ptx", &["_Z1kPf"], &With::default(), LIMITS).unwrap();
    assert_eq!(ready.record.ptx_sha256, compiled.record.ptx_sha256);
    assert_eq!((ready.record.entries, ready.record.global_bytes), (compiled.record.entries, 4));
    assert_eq!(ready.files.keys().collect::<Vec<_>>(), ["ready.ptx"]);
    assert_eq!((ready.record.language, ready.record.nvcc), (Language::Ptx, compiled.record.nvcc));
    let old = ptx.replace("V13.0.88", "V12.4.131").replace("release 13.0", "release 12.4");
    room.write("old.ptx", &old);
    let old = room.try_with("old.ptx", &["_Z1kPf"], &With::default(), LIMITS).unwrap();
    assert_eq!(old.record.nvcc, "12.4.131", "whoever made it, as it says");
    room.write("other.ptx", &ptx.replace("sm_89", "sm_90"));
    let failed = room.try_with("other.ptx", &["_Z1kPf"], &With::default(), LIMITS).unwrap_err();
    assert!(failed.starts_with("FAIL ptxas: "), "{failed}");
}

#[test]
fn machine_code_is_taken_as_it_is_with_what_it_says_of_itself() {
    let room = Room::new();
    room.write("kernel.cu", KERNELS);
    let compiled = room.compile(&["plain", "_Z4overPf"]).unwrap();
    let gate = room.dir.path().join("gate");
    std::fs::copy(compiled.dir.join("kernel.cubin"), gate.join("old.cubin")).unwrap();
    let cubin = |entries: &[&str]| room.try_with("old.cubin", entries, &With::default(), LIMITS);
    let taken = cubin(&["plain", "_Z4overPf"]).unwrap();
    let figures = |compiled: &Compiled| {
        let of = |e: &kbench::evidence::EntryBuild| {
            (e.code_sha256.clone(), e.resources.registers, e.resources.static_smem_bytes, e.launch.clone())
        };
        compiled.record.entries.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(figures(&taken), figures(&compiled));
    let record = &taken.record;
    assert_eq!((record.language, record.ptx_sha256.as_str(), record.ptxas.as_str()), (Language::Cubin, "", ""));
    assert!(!taken.dir.join("kernel.ptx").exists());
    let plain = taken.entries.iter().find(|e| e.name == "plain").unwrap();
    let places: Vec<_> = plain.params.iter().map(|p| (p.offset, p.size)).collect();
    assert_eq!((places, plain.max_block), (vec![(0, 8), (8, 8), (16, 4)], Some([128, 1, 1])));
    assert!(cubin(&["plain"]).unwrap().cached);
    assert!(cubin(&["plane"]).unwrap_err().starts_with("REFUSED variants.v.entry: old.cubin: there is no `plane`"));
    std::fs::write(gate.join("old.cubin"), "text").unwrap();
    assert!(cubin(&["plain"]).unwrap_err().starts_with("REFUSED variants.v.source: old.cubin: the cubin is no"));
}

#[test]
fn a_source_that_does_not_compile_fails_with_its_first_error() {
    let room = Room::new();
    room.write(
        "kernel.cu",
        "\ntemplate <int N> __global__ void k(float* p) { static_assert(N < 4, \"too large\"); *p = N }\n",
    );
    assert_eq!(room.compile(&["k<3>"]).unwrap_err(), "FAIL nvcc: kernel.cu(2): error: expected a \";\"");
    room.write(
        "kernel.cu",
        "\ntemplate <int N> __global__ void k(float* p) { static_assert(N < 4, \"too large\"); *p = N; }\n",
    );
    let failed = room.compile(&["k<5>"]).unwrap_err();
    assert!(
        failed.starts_with("FAIL nvcc: kernel.cu(2): error: static assertion failed with \"too large\""),
        "{failed}"
    );
    assert!(room.compile(&["k<3>"]).is_ok());
}

#[test]
fn a_compilation_without_end_is_stopped() {
    let room = Room::new();
    room.write(
        "kernel.cu",
        "template <int N, int M> struct F { static constexpr int v = F<N - 1, 2 * M>::v + F<N - 1, 2 * M + 1>::v; };\n\
         template <int M> struct F<0, M> { static constexpr int v = M; };\n\
         __global__ void k(int* p) { *p = F<26, 1>::v; }\n",
    );
    let run = |limits| room.try_with("kernel.cu", &["k"], &With::default(), limits).unwrap_err();
    let start = Instant::now();
    let limits = Limits { time: Duration::from_secs(2), ..LIMITS };
    assert_eq!(run(limits), "FAIL nvcc: still compiling after 2 s and was stopped: make it smaller");
    assert!(start.elapsed() < Duration::from_secs(30));
    let limits = Limits { memory_bytes: 400 << 20, ..LIMITS };
    assert_eq!(run(limits), "FAIL nvcc: needs more than the 400 MiB that a compilation may use: make it smaller");
}

#[test]
fn spills_and_device_variables_are_reported() {
    let room = Room::new();
    room.write(
        "kernel.cu",
        "__device__ int counter;\n__device__ double table[3];\n\
         template <int N> __global__ void __launch_bounds__(1024) k(float* p, int n) {\n\
           float a[N];\n\
           for (int r = 0; r < n; ++r) {\n\
             #pragma unroll\n  for (int i = 0; i < N; ++i) a[i] = r ? a[i] * p[i * n + r] : p[i];\n\
             #pragma unroll\n  for (int i = 0; i < N; ++i) p[i] += a[N - 1 - i] + a[i];\n\
           }\n\
           counter = n; table[0] = n;\n\
         }\n",
    );
    let compiled = room.compile(&["k<100>", "k<2>"]).unwrap();
    assert_eq!(compiled.record.global_bytes, 28, "an int and three doubles");
    assert!(compiled.record.spill_bytes() > 0);
    let [large, small] = compiled.record.entries.as_slice() else { panic!() };
    assert!(large.resources.spill_store_bytes > 0 && small.resources.spill_store_bytes == 0);
}

#[test]
fn a_copy_of_the_folder_is_the_same_build() {
    let room = Room::new();
    room.write("kernel.cu", KERNELS);
    room.write("other/kernel.cu", KERNELS);
    let entries = [Named { text: "lib::k<4, false, lib::Mode::A>".into(), threads: 1, dynamic_smem_bytes: 0 }];
    let build = |folder: &Path| {
        let source = source(folder, &entries);
        compile(&room.layout, &room.tools, "v", &source, "sm_90a").unwrap().unwrap()
    };
    let gate = room.dir.path().join("gate");
    let (first, second) = (build(&gate), build(&gate.join("other")));
    assert!(second.cached && first.record == second.record);
}

/// The PTX of a copy names the copy's folder, so that two builds of one key need not be the same bytes.
#[test]
fn copies_of_a_source_that_are_compiled_at_once_all_get_the_build_that_is_kept() {
    let room = Room::new();
    let folders: Vec<_> = (0..6).map(|copy| room.dir.path().join(format!("copy{copy}"))).collect();
    for folder in &folders {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("kernel.cu"), KERNELS).unwrap();
    }
    let entries = [Named { text: "plain".into(), threads: 64, dynamic_smem_bytes: 128 }];
    let together = std::sync::Barrier::new(folders.len());
    let compile_one = |folder: &Path| {
        let source = source(folder, &entries);
        together.wait();
        compile(&room.layout, &room.tools, "v", &source, "sm_89").unwrap().unwrap()
    };
    let built: Vec<Compiled> = std::thread::scope(|scope| {
        let threads: Vec<_> = folders.iter().map(|folder| scope.spawn(|| compile_one(folder))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(built.iter().filter(|compiled| !compiled.cached).count() > 1, "none was compiled beside another");
    for compiled in built {
        let kept = std::fs::read(compiled.dir.join("kernel.ptx")).unwrap();
        assert_eq!(compiled.record.ptx_sha256, xtask::cubin::sha256_hex(&kept), "{}", compiled.dir.display());
    }
}
