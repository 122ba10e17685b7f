//! Shadow of shared memory: last write and reads since, per line of 16 bytes, word or byte.
//!
//! A line is split into words, and a word into bytes, the first time a smaller access touches it
//! (neighbouring FP8 values belong to different threads); a write of the whole joins it again.
//! Splitting is invisible: the parts hold what the whole held, and a clash on a line is reported
//! for each of its words.

use super::clock::{Epoch, Relation, View};

/// What a conflicting pair did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    WriteWrite,
    ReadAfterWrite,
    WriteAfterRead,
    /// The earlier access is an asynchronous copy that is not complete.
    InFlight,
}

/// A conflict found by an access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub(crate) clash: Clash,
    pub(crate) relation: Relation,
    pub(crate) earlier: Epoch,
    pub(crate) lane: u32,
    /// First byte of the word, or the byte, concerned.
    pub(crate) offset: u32,
    /// The store wrote the value that was there.
    pub(crate) same_value: bool,
}

/// One access of one lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) offset: u32,
    pub(crate) size: u32,
    pub(crate) write: bool,
    pub(crate) same_value: bool,
    pub(crate) me: Epoch,
}

impl Access {
    /// Lane that owns the access; a collective one has none.
    #[inline(always)]
    fn lane(&self) -> u32 {
        if self.me.is_collective() { u32::MAX } else { self.me.lane() }
    }
}

/// Bytes of a line, the largest cell.
const LINE: u32 = 16;
/// Bytes of a word.
const WORD: u32 = 4;

/// Cells of one size. Each is the last write, then the last read of every warp since.
#[derive(Debug, Default)]
struct Cells {
    epochs: Vec<Epoch>,
}

impl Cells {
    fn new(count: usize, stride: usize) -> Cells {
        Cells { epochs: vec![Epoch::default(); count * stride] }
    }
}

/// Shadow of one block's shared memory.
#[derive(Debug)]
pub(crate) struct Shadow {
    /// Epochs of a cell: one write and a read per warp.
    stride: usize,
    lines: Cells,
    /// Four cells per line, in force where the line is split.
    words: Cells,
    /// Four cells per word, in force where the word is split; made when the first one is.
    bytes: Cells,
    line_split: Vec<bool>,
    word_split: Vec<bool>,
}

impl Shadow {
    pub(crate) fn new(bytes: usize, warps: usize) -> Shadow {
        let lines = bytes.div_ceil(LINE as usize);
        let stride = 1 + warps.max(1);
        Shadow {
            stride,
            lines: Cells::new(lines, stride),
            words: Cells::new(4 * lines, stride),
            bytes: Cells::default(),
            line_split: vec![false; lines],
            word_split: vec![false; 4 * lines],
        }
    }

    fn cell(cells: &mut Cells, index: usize, stride: usize) -> &mut [Epoch] {
        &mut cells.epochs[index * stride..(index + 1) * stride]
    }

    /// Records an access and passes every conflict to `report`.
    #[inline]
    pub(crate) fn access(&mut self, view: &View<'_>, access: Access, report: &mut impl FnMut(Conflict)) {
        let (mut at, end) = (access.offset, access.offset + access.size);
        let (line, word) = ((at / LINE) as usize, (at / WORD) as usize);
        // The usual access: one word of a line whose words are told apart.
        if access.size == WORD && at.is_multiple_of(WORD) && self.line_split[line] && !self.word_split[word] {
            touch(Self::cell(&mut self.words, word, self.stride), view, at, WORD, &access, report);
            return;
        }
        while at < end {
            let line = (at / LINE) as usize;
            let next = (at / LINE * LINE + LINE).min(end);
            let whole = next - at == LINE;
            if whole && !self.line_split[line] {
                touch(Self::cell(&mut self.lines, line, self.stride), view, at, LINE, &access, report);
            } else {
                self.split_line(line);
                self.access_words(view, at, next, &access, report);
                if whole && access.write {
                    overwrite(Self::cell(&mut self.lines, line, self.stride), access.me);
                    self.line_split[line] = false;
                }
            }
            at = next;
        }
    }

    /// Part of an access, inside one line that is split.
    fn access_words(
        &mut self,
        view: &View<'_>,
        from: u32,
        to: u32,
        access: &Access,
        report: &mut impl FnMut(Conflict),
    ) {
        let mut at = from;
        while at < to {
            let word = (at / WORD) as usize;
            let next = (at / WORD * WORD + WORD).min(to);
            let whole = next - at == WORD;
            if whole && !self.word_split[word] {
                touch(Self::cell(&mut self.words, word, self.stride), view, at, WORD, access, report);
            } else {
                self.split_word(word);
                for byte in at..next {
                    touch(Self::cell(&mut self.bytes, byte as usize, self.stride), view, byte, 1, access, report);
                }
                if whole && access.write {
                    overwrite(Self::cell(&mut self.words, word, self.stride), access.me);
                    self.word_split[word] = false;
                }
            }
            at = next;
        }
    }

    /// Makes the words of a line hold what the line holds, if they do not already.
    fn split_line(&mut self, line: usize) {
        if self.line_split[line] {
            return;
        }
        self.line_split[line] = true;
        self.word_split[4 * line..4 * line + 4].fill(false);
        let stride = self.stride;
        let source = &self.lines.epochs[line * stride..(line + 1) * stride];
        for word in self.words.epochs[4 * line * stride..4 * (line + 1) * stride].chunks_exact_mut(stride) {
            word.copy_from_slice(source);
        }
    }

    /// As [`Shadow::split_line`], a word into bytes.
    fn split_word(&mut self, word: usize) {
        if self.word_split[word] {
            return;
        }
        if self.bytes.epochs.is_empty() {
            self.bytes = Cells::new(4 * self.word_split.len(), self.stride);
        }
        self.word_split[word] = true;
        let stride = self.stride;
        let source = &self.words.epochs[word * stride..(word + 1) * stride];
        for byte in self.bytes.epochs[4 * word * stride..4 * (word + 1) * stride].chunks_exact_mut(stride) {
            byte.copy_from_slice(source);
        }
    }

    /// Marks the bytes of a finished asynchronous copy as written by `me`.
    pub(crate) fn complete(&mut self, offset: u32, size: u32, me: Epoch) {
        let (mut at, end) = (offset, offset + size);
        while at < end {
            let (line, word) = ((at / LINE) as usize, (at / WORD) as usize);
            if !self.line_split[line] && at.is_multiple_of(LINE) && end - at >= LINE {
                Self::cell(&mut self.lines, line, self.stride)[0] = me;
                at += LINE;
                continue;
            }
            self.split_line(line);
            if self.word_split[word] {
                Self::cell(&mut self.bytes, at as usize, self.stride)[0] = me;
                at += 1;
            } else {
                Self::cell(&mut self.words, word, self.stride)[0] = me;
                at = at / WORD * WORD + WORD;
            }
        }
    }
}

/// A write that every earlier access is forgotten for.
#[inline(always)]
fn overwrite(cell: &mut [Epoch], me: Epoch) {
    cell.fill(Epoch::default());
    cell[0] = me;
}

/// Checks and updates the cell of `size` bytes at `offset`.
#[inline(always)]
fn touch(
    cell: &mut [Epoch],
    view: &View<'_>,
    offset: u32,
    size: u32,
    access: &Access,
    report: &mut impl FnMut(Conflict),
) {
    if !view.is_past(cell[0]) {
        judge_write(cell[0], view, access, &mut pass_on(offset, size, access, report));
    }
    if access.write {
        let (past, any) =
            cell[1..].iter().fold((true, false), |(past, any), read| (past & view.is_past(*read), any | read.exists()));
        if !past {
            judge_reads(&cell[1..], view, access, &mut pass_on(offset, size, access, report));
        }
        if any {
            overwrite(cell, access.me);
        } else {
            cell[0] = access.me;
        }
    } else {
        let slot = &mut cell[1 + access.me.warp() as usize];
        *slot = if view.is_past(*slot) { access.me } else { newer_read(*slot, view, access.me) };
    }
}

/// Reports a clash once for every word of the cell, as if each had a cell of its own.
fn pass_on(
    offset: u32,
    size: u32,
    access: &Access,
    report: &mut impl FnMut(Conflict),
) -> impl FnMut(Clash, Relation, Epoch) {
    move |clash, relation, earlier| {
        for offset in (offset..offset + size).step_by(WORD as usize) {
            let (lane, same_value) = (access.me.lane(), access.same_value);
            report(Conflict { clash, relation, earlier, lane, offset, same_value });
        }
    }
}

#[cold]
fn judge_write(write: Epoch, view: &View<'_>, access: &Access, clash: &mut impl FnMut(Clash, Relation, Epoch)) {
    let relation = view.relation(write, access.lane());
    if write.is_in_flight() {
        clash(Clash::InFlight, relation, write);
    } else if relation != Relation::Ordered && !write.may_meet(access.me) {
        let kind = if access.write { Clash::WriteWrite } else { Clash::ReadAfterWrite };
        clash(kind, relation, write);
    }
}

fn judge_reads(reads: &[Epoch], view: &View<'_>, access: &Access, clash: &mut impl FnMut(Clash, Relation, Epoch)) {
    for &read in reads {
        if !read.exists() || read.may_meet(access.me) {
            continue;
        }
        let mut relation = view.relation(read, access.lane());
        if relation == Relation::Converged && read.is_collective() && access.me.is_collective() {
            // Fragments read by the whole warp are in registers before it can store others.
            relation = Relation::Ordered;
        }
        if relation != Relation::Ordered {
            clash(Clash::WriteAfterRead, relation, read);
        }
    }
}

/// The newer read of a warp, marked when other lanes read since the last synchronisation.
#[inline(always)]
fn newer_read(old: Epoch, view: &View<'_>, me: Epoch) -> Epoch {
    if old.exists() && view.relation(old, me.lane()) != Relation::Ordered { me.several() } else { me }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::clock::Clocks;
    use proptest::prelude::*;

    const WARPS: usize = 3;
    const BYTES: u32 = 32;

    #[derive(Clone, Debug)]
    enum Step {
        Touch {
            warp: usize,
            lane: u32,
            offset: u32,
            size: u32,
            write: bool,
        },
        /// All warps meet.
        Barrier,
        /// One warp publishes, another learns.
        Signal {
            from: usize,
            to: usize,
        },
        WarpSync {
            warp: usize,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let touch = (0..WARPS, 0..3u32, 0..BYTES, prop::sample::select(vec![1u32, 2, 4, 4, 8, 16]), any::<bool>())
            .prop_map(|(warp, lane, offset, size, write)| Step::Touch {
                warp,
                lane,
                offset: offset / size * size,
                size,
                write,
            });
        let step = prop_oneof![
            8 => touch,
            1 => Just(Step::Barrier),
            2 => (0..WARPS, 0..WARPS).prop_map(|(from, to)| Step::Signal { from, to }),
            1 => (0..WARPS).prop_map(|warp| Step::WarpSync { warp }),
        ];
        prop::collection::vec(step, 1..60)
    }

    fn order(clocks: &mut Clocks, step: &Step) {
        match *step {
            Step::Barrier => {
                let mut stamp = Vec::new();
                (0..WARPS).for_each(|warp| clocks.release(warp, &mut stamp));
                for warp in 0..WARPS {
                    clocks.acquire(warp, &stamp);
                    clocks.sync_warp(warp);
                }
            }
            Step::Signal { from, to } => {
                let mut stamp = Vec::new();
                clocks.release(from, &mut stamp);
                clocks.acquire(to, &stamp);
            }
            Step::WarpSync { warp } => clocks.sync_warp(warp),
            Step::Touch { .. } => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a detector that keeps every access: what the shadow reports is a race, and the
        /// first race of two warps on a byte is never missed.
        #[test]
        fn agrees_with_a_detector_that_forgets_nothing(steps in steps()) {
            let mut clocks = Clocks::new(WARPS);
            let mut shadow = Shadow::new(BYTES as usize, WARPS);
            let mut history: Vec<(u32, bool, Epoch)> = Vec::new();
            let mut raced = [false; BYTES as usize];
            for (pc, step) in steps.iter().enumerate() {
                order(&mut clocks, step);
                let Step::Touch { warp, lane, offset, size, write } = *step else { continue };
                let view = clocks.view(warp, None);
                let me = Epoch::new(pc as u32, clocks.now(warp), warp as u32).with_lane(lane);
                let mut found: Vec<Conflict> = Vec::new();
                let access = Access { offset, size, write, same_value: false, me };
                shadow.access(&view, access, &mut |conflict| found.push(conflict));
                for byte in offset..offset + size {
                    // Within a warp another warp may order two lanes through signals, which
                    // the relation does not see; so only pairs of warps must be found.
                    let raced_now = history.iter().any(|(at, wrote, old)| {
                        *at == byte && (*wrote || write) && view.relation(*old, lane) == Relation::OtherWarp
                    });
                    let here = |c: &&Conflict| c.offset == byte || (c.offset == byte / 4 * 4 && size >= 4);
                    let reported: Vec<&Conflict> = found.iter().filter(here).collect();
                    if raced_now && !raced[byte as usize] {
                        prop_assert!(!reported.is_empty(), "missed the first race of byte {}", byte);
                    }
                    raced[byte as usize] |= raced_now;
                }
                for conflict in &found {
                    let real = history.iter().any(|(at, wrote, old)| {
                        (offset..offset + size).contains(at)
                            && (*wrote || write)
                            && old.pc() == conflict.earlier.pc()
                            && view.relation(*old, lane) != Relation::Ordered
                    });
                    // A read marked as made by several lanes stands for one of the others.
                    prop_assert!(real || conflict.earlier.is_several(), "invented {:?}", conflict);
                }
                history.extend((offset..offset + size).map(|byte| (byte, write, me)));
            }
        }
    }
}
