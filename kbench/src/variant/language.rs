//! What kernels are written in, and what follows from that alone. The one place that tells the kinds of sources apart.
//! Leaves to others: what is launched, and making machine code of any of them.

use serde::{Deserialize, Serialize};

use super::{Kind, Variant};

/// What a kernel is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Language {
    /// CUDA C++, which nvcc makes PTX of.
    #[default]
    Cuda,
    /// PTX, as any compiler or person wrote it.
    Ptx,
    /// Machine code of one architecture.
    Cubin,
    /// A function that Triton makes PTX of.
    Triton,
    /// A Python function on tensors, which launches for itself.
    Call,
}

impl Language {
    /// Those whose file says what they are, as a message lists them.
    pub(super) const BY_EXTENSION: [(&str, Language); 3] =
        [("cu", Language::Cuda), ("ptx", Language::Ptx), ("cubin", Language::Cubin)];

    /// That of a source which holds entry functions.
    pub(super) fn of_source(source: &str) -> Language {
        let extension = source.rsplit_once('.').map_or("", |(_, extension)| extension);
        Language::BY_EXTENSION
            .iter()
            .find(|(own, _)| *own == extension)
            .map_or(Language::Cuda, |(_, language)| *language)
    }

    /// Whether it is CUDA C++, which evidence leaves out.
    pub fn is_cuda(&self) -> bool {
        *self == Language::Cuda
    }

    /// Whether it is compiled already, so that no compiler can be told anything.
    pub fn is_ready(self) -> bool {
        matches!(self, Language::Ptx | Language::Cubin)
    }

    /// Whether it is host code, which does its own launches: nothing is built of it, and what it launches is not looked into.
    pub fn is_host_code(self) -> bool {
        self == Language::Call
    }

    /// Whether what is known of it comes from PTX, and from the assembler that was given that.
    pub fn has_ptx(self) -> bool {
        matches!(self, Language::Cuda | Language::Ptx | Language::Triton)
    }
}

impl Variant {
    /// What it is written in.
    pub fn language(&self) -> Language {
        match self.kind {
            Kind::Triton(_) => Language::Triton,
            Kind::Call(_) => Language::Call,
            Kind::Entry(_) | Kind::Launches(_) | Kind::Plan { .. } => Language::of_source(&self.source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_they_are() {
        let of = ["a/b.cu", "k.ptx", "sub.cu/k.cubin"].map(Language::of_source);
        assert_eq!(of, [Language::Cuda, Language::Ptx, Language::Cubin]);
        assert!(Language::Ptx.is_ready() && !Language::Triton.is_ready());
        assert!(Language::Triton.has_ptx() && !Language::Cubin.has_ptx());
    }
}
