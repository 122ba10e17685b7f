//! Modifiers of one instruction, ticked off as the lowering understands them.
//!
//! Whatever is left at the end is an error by name: nothing is ever ignored silently. Hints
//! that cannot change a result are on an explicit list.

use crate::parse::ast::Ty;

/// Modifiers that only steer caches or schedulers.
const HINTS: &[&str] = &[
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::64B",
    "L2::128B",
    "L2::256B",
];

/// The dotted words behind an opcode.
pub(super) struct Mods<'a> {
    words: Vec<(&'a str, bool)>,
}

impl<'a> Mods<'a> {
    pub(super) fn new(words: &'a [String]) -> Mods<'a> {
        let words = words.iter().map(|w| (w.as_str(), HINTS.contains(&w.as_str()))).collect();
        Mods { words }
    }

    /// Ticks off `word` if it is there.
    pub(super) fn flag(&mut self, word: &str) -> bool {
        match self.words.iter_mut().find(|(w, used)| *w == word && !used) {
            Some(entry) => {
                entry.1 = true;
                true
            }
            None => false,
        }
    }

    /// Ticks off the first word for which `pick` has a meaning.
    pub(super) fn pick<T>(&mut self, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        for (word, used) in &mut self.words {
            if *used {
                continue;
            }
            if let Some(value) = pick(word) {
                *used = true;
                return Some(value);
            }
        }
        None
    }

    /// Ticks off the next type.
    pub(super) fn ty(&mut self) -> Option<Ty> {
        self.pick(Ty::parse)
    }

    /// First modifier not ticked off.
    pub(super) fn leftover(&self) -> Option<&'a str> {
        self.words.iter().find(|(_, used)| !used).map(|(word, _)| *word)
    }
}
