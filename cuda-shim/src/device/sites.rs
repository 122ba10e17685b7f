//! Where in the program a call came from. Taken at every launch and allocation, and put into words only for a finding.

use std::backtrace::Backtrace;
use std::sync::Arc;

/// A place in the program, with its callers.
#[derive(Clone, Debug)]
pub struct Site(Arc<Backtrace>);

/// Most callers that are named.
const MAX_FRAMES: usize = 4;

/// One function on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub function: String,
    /// `path:line`, where the program has debug information.
    pub place: Option<String>,
}

impl Site {
    /// The place of the call that is being answered.
    pub fn here() -> Site {
        Site(Arc::new(Backtrace::force_capture()))
    }

    /// The program's own functions, the innermost first.
    pub fn frames(&self) -> Vec<Frame> {
        let mut frames = frames(&self.0.to_string());
        frames.truncate(MAX_FRAMES);
        frames
    }

    /// In words, for a note.
    pub fn words(&self) -> Option<String> {
        let frames = self.frames();
        let first = frames.first()?;
        Some(match &first.place {
            Some(place) => format!("{place} ({})", first.function),
            None => first.function.clone(),
        })
    }
}

/// The frames of the program in the text of a backtrace: what is behind the last function of this library, up to `main`.
fn frames(text: &str) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(place) = line.strip_prefix("at ") {
            // The column says nothing more.
            let place = place.rsplit_once(':').map_or(place, |(place, _)| place);
            if let Some(last) = frames.last_mut() {
                last.place = Some(place.trim_start_matches("./").to_owned());
            }
        } else if let Some((_, function)) = line.split_once(": ") {
            frames.push(Frame { function: function.to_owned(), place: None });
        }
    }
    let is_ours = |frame: &Frame| {
        let name = frame.function.as_str();
        let is_call = |name: &str| {
            let behind = name.trim_start_matches("__").strip_prefix("cuda").or_else(|| name.strip_prefix("cu"));
            behind.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase())) && !name.contains('(')
        };
        name.contains("cuda_shim::") || is_call(name)
    };
    let behind = frames.iter().rposition(is_ours).map_or(0, |last| last + 1);
    let end = frames.iter().position(|frame| frame.function == "main").map_or(frames.len(), |main| main + 1);
    // What nvcc makes of `<<<>>>`, a stub and the kernel's own name for the host, and the headers' templates are no places
    // of the user's.
    let stub = frames.iter().rposition(|frame| frame.function.contains("__device_stub__")).map_or(0, |stub| stub + 2);
    let is_users = |frame: &Frame| {
        frame.function != "<unknown>" && !frame.place.as_ref().is_some_and(|place| place.contains("cuda_runtime.h"))
    };
    frames.drain(..end).skip(behind.max(stub)).filter(is_users).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_functions_are_left() {
        let text = "   0: std::backtrace::Backtrace::force_capture
   1: cuda_shim::device::sites::Site::here
             at ./cuda-shim/src/device/sites.rs:20:24
   2: cuda_shim::runtime::memory::cudaMalloc::{{closure}}
   3: cudaMalloc
   4: cudaError cudaMalloc<float>(float**, unsigned long)
             at /cuda/include/cuda_runtime.h:759:41
   5: upload(float**)
             at ./src/app.cu:41:3
   6: main
             at ./src/app.cu:57:8
   7: __libc_start_main
";
        let frame = |function: &str, place: &str| Frame { function: function.into(), place: Some(place.into()) };
        assert_eq!(frames(text), [frame("upload(float**)", "src/app.cu:41"), frame("main", "src/app.cu:57")]);
        let launch = "   0: __cudaLaunchKernel\n   1: _Z16__device_stub__Z3sumv\n   2: sum()\n   3: main\n";
        assert_eq!(frames(launch), [Frame { function: "main".into(), place: None }]);
        assert_eq!(frames("   0: cuInit\n   1: main\n"), [Frame { function: "main".into(), place: None }]);
    }
}
