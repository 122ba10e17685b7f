//! The blocks of a cluster, run together by one thread of the host; a block without a cluster is alone in its own.

use std::sync::atomic::Ordering::Relaxed;

use crate::exec::run::block::{Block, BlockTurn, Closed, Context};

/// Blocks that live and end together.
pub(crate) struct Cluster {
    /// By rank; the one that runs holds the others.
    blocks: Vec<Option<Box<Block>>>,
    ended: Vec<bool>,
    /// The block whose turn it is.
    at: usize,
    /// Whether it may do what orders blocks.
    pub(crate) granted: bool,
    idle_turns: u32,
    /// Changes of the blocks and of global memory up to the last wait.
    seen: (u64, u64),
}

impl Cluster {
    /// The blocks of these places in the grid, by rank; `at` is the cluster's place in the list of those that run.
    pub(crate) fn new(context: &Context<'_>, places: &[[u32; 3]], at: usize) -> Cluster {
        let made = |(rank, id): (usize, &[u32; 3])| Some(Box::new(Block::new(context, *id, at, rank as u32)));
        let blocks: Vec<_> = places.iter().enumerate().map(made).collect();
        let ended = vec![false; blocks.len()];
        Cluster { blocks, ended, at: 0, granted: false, idle_turns: 0, seen: (0, 0) }
    }

    /// Begins a round of so many instructions that are not row operations, of each block.
    pub(crate) fn begin_round(&mut self, quantum: u64) {
        self.blocks.iter_mut().flatten().for_each(|block| block.begin_round(quantum));
    }

    /// Runs the blocks until all exit or all wait, the round ends, or one comes to what it may only do in its turn.
    pub(crate) fn run(&mut self, context: &Context<'_>) -> BlockTurn {
        let count = self.blocks.len();
        let mut waiting = 0;
        loop {
            if self.ended.iter().all(|ended| *ended) {
                return BlockTurn::Finished;
            }
            if !self.ended[self.at] {
                let before = self.progress();
                let turn = self.run_one(context);
                match turn {
                    BlockTurn::AtOp => return turn,
                    BlockTurn::Finished => (self.ended[self.at], waiting) = (true, 0),
                    BlockTurn::Waiting if self.progress() == before => waiting += 1,
                    BlockTurn::Waiting => waiting = 0,
                    BlockTurn::RoundEnd => {
                        self.at = (self.at + 1) % count;
                        // The others have their share of the round, too.
                        if self.at == 0 || count == 1 {
                            return turn;
                        }
                        continue;
                    }
                }
                if context.is_over() {
                    return BlockTurn::Finished;
                }
            }
            self.at = (self.at + 1) % count;
            if waiting > 0 && waiting >= self.ended.iter().filter(|ended| !**ended).count() {
                return BlockTurn::Waiting;
            }
        }
    }

    fn run_one(&mut self, context: &Context<'_>) -> BlockTurn {
        let Some(mut block) = self.blocks[self.at].take() else { return BlockTurn::Finished };
        block.granted = self.granted;
        block.peers = std::mem::take(&mut self.blocks);
        let turn = block.run(context);
        self.granted = block.granted;
        self.blocks = std::mem::take(&mut block.peers);
        self.blocks[self.at] = Some(block);
        turn
    }

    fn progress(&self) -> u64 {
        self.blocks.iter().flatten().map(|block| block.progress).sum()
    }

    /// Tells how much the blocks executed.
    pub(crate) fn tell(&mut self, context: &Context<'_>) {
        self.blocks.iter_mut().flatten().for_each(|block| block.tell(context));
    }

    /// Notes a wait, and whether nothing changed since the last, neither in the blocks nor in global memory.
    pub(crate) fn note_wait(&mut self, context: &Context<'_>) {
        let now = (self.progress(), context.progress.load(Relaxed));
        self.idle_turns = if self.seen == now { self.idle_turns + 1 } else { 0 };
        self.seen = now;
    }

    /// Waits in a row in which nothing changed.
    pub(crate) fn idle_turns(&self) -> u32 {
        self.idle_turns
    }

    /// Whether it polled for long in vain when it last looked.
    pub(crate) fn has_idled_long(&self, context: &Context<'_>) -> bool {
        self.idle_turns > context.launch.limits.idle_turns
    }

    /// Whether it polled for long while nothing changed anywhere.
    pub(crate) fn has_waited_long(&self, context: &Context<'_>) -> bool {
        self.has_idled_long(context) && self.seen.1 == context.progress.load(Relaxed)
    }

    /// Reports polls that nothing will ever answer, of the blocks that have not ended.
    pub(crate) fn report_no_progress(&mut self, context: &Context<'_>) {
        let ended = self.ended.clone();
        let running = self.blocks.iter_mut().flatten().zip(ended).filter(|(_, ended)| !ended);
        running.for_each(|(block, _)| block.report_no_progress(context));
    }

    /// What is left of the blocks when they ended.
    pub(crate) fn close(self) -> Vec<Closed> {
        self.blocks.into_iter().flatten().map(|block| block.close()).collect()
    }
}
