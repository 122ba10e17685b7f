//! The order in which blocks act on what they share, the same for any number of the host's threads.
//!
//! A block's time is counted in rounds of its own instructions. What orders blocks (strong accesses to global memory,
//! the end of a block, a wait that starts another) happens in the order of rounds, and within a round in that of the
//! schedule. All else of a block touches nobody unless there is a race, so blocks may run ahead of their turn until
//! they come to such an access. Whoever has its turn keeps it for its round. Where one of the host's threads does
//! it all (`serial`), whole rounds are taken in this order, so that even what races has one outcome.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::counts::Tallies;
use crate::exec::run::block::{BlockTurn, Closed, Context};
use crate::exec::run::cluster::Cluster;
use crate::launch::Schedule;

/// What the order of a launch depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) schedule: Schedule,
    /// The kernel can order blocks; otherwise they only meet in races.
    pub(crate) ordered: bool,
    /// Nobody runs ahead of its turn.
    pub(crate) serial: bool,
    /// Blocks in all, and those that may be live at once.
    pub(crate) blocks: usize,
    pub(crate) resident: usize,
}

/// Live blocks that have not waited yet, where blocks run by rounds and each keeps its state meanwhile.
const WINDOW: usize = 32;
/// Rounds that a block which polls in vain leaves out, at most.
const MAX_PAUSE: u64 = 16;

impl Rules {
    /// Blocks meet in races alone, and whoever saw one would run the launch again in order.
    fn free(&self) -> bool {
        !self.ordered && !self.serial
    }

    fn window(&self) -> usize {
        if self.ordered { WINDOW.min(self.resident) } else { self.resident }
    }

    /// A number that is random if the schedule is.
    fn draw(&self, round: u64, at: usize) -> u64 {
        let Schedule::Seeded(seed) = self.schedule else { return 0 };
        let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round.rotate_left(32) ^ at as u64;
        for _ in 0..2 {
            mixed = (mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        mixed ^ mixed >> 29
    }

    fn key(&self, round: u64, at: usize) -> Key {
        let rank = match self.schedule {
            Schedule::Greedy | Schedule::RoundRobin => at as u64,
            Schedule::Reverse => u64::MAX - at as u64,
            Schedule::Seeded(_) => self.draw(round, at),
        };
        Key { round, rank, at }
    }

    /// Length of a round in instructions that are not row operations.
    fn quantum(&self, key: Key) -> u64 {
        match self.schedule {
            _ if !self.ordered => u64::MAX,
            Schedule::Greedy | Schedule::Reverse => 1 << 14,
            Schedule::RoundRobin => 1 << 10,
            Schedule::Seeded(_) => 1 << (self.draw(!key.round, key.at) % 15),
        }
    }
}

/// The turn of a block, and its place in the list of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    round: u64,
    rank: u64,
    at: usize,
}

enum State {
    New,
    Running,
    /// May run ahead of its turn.
    Idle(Box<Cluster>),
    /// Can only go on when it has its turn.
    AtOp(Box<Cluster>),
    /// Ended or waits, which takes effect when it has its turn.
    Ended(Box<Cluster>, BlockTurn),
}

struct Slot {
    key: Key,
    state: State,
    /// Has waited for others once: a further block may be started beside it.
    waited: bool,
}

struct Table {
    rules: Rules,
    /// Live blocks.
    slots: Vec<Slot>,
    /// Next block of the list to start.
    next: usize,
    /// The block that has its turn.
    granted: Option<usize>,
    /// Whoever has its turn is the last hope that something changes.
    last_chance: bool,
    closed: Vec<Closed>,
    /// What those did, where the launch has it counted.
    counts: Option<Tallies>,
}

impl Table {
    /// Starts blocks while there is room, in a round.
    fn dispatch(&mut self, round: u64) {
        while self.next < self.rules.blocks
            && self.slots.len() < self.rules.resident
            && self.slots.iter().filter(|slot| !slot.waited).count() < self.rules.window()
        {
            let key = self.rules.key(round, self.next);
            self.slots.push(Slot { key, state: State::New, waited: false });
            self.next += 1;
        }
    }

    /// The block whose turn it is, and whether it is the last hope.
    fn first(&self, context: &Context<'_>) -> Option<(usize, bool)> {
        let hopeful = |slot: &Slot| match &slot.state {
            State::Idle(block) | State::AtOp(block) => !block.has_waited_long(context),
            State::New | State::Running | State::Ended(..) => true,
        };
        let keys = || self.slots.iter().enumerate().map(|(i, slot)| (slot.key, i));
        let found = keys().filter(|(_, i)| hopeful(&self.slots[*i])).min();
        found.map(|(_, i)| (i, false)).or_else(|| keys().min().map(|(_, i)| (i, true)))
    }

    /// Lets what has ended or waits take effect, each in its turn.
    fn settle(&mut self, context: &Context<'_>) {
        loop {
            let next = if self.rules.free() {
                self.slots.iter().position(|slot| matches!(slot.state, State::Ended(..)))
            } else {
                let first = if self.granted.is_none() { self.first(context) } else { None };
                first.map(|(i, _)| i).filter(|i| matches!(self.slots[*i].state, State::Ended(..)))
            };
            let Some(i) = next else { return };
            let Slot { key, state, .. } = self.slots.swap_remove(i);
            let State::Ended(mut block, turn) = state else { return };
            if turn == BlockTurn::Waiting {
                block.note_wait(context);
                if self.last_chance && block.has_waited_long(context) {
                    block.report_no_progress(context);
                    self.close(*block);
                    return self.give_up();
                }
                let pause = u64::from(block.idle_turns()).min(MAX_PAUSE);
                let key = self.rules.key(key.round + 1 + pause, key.at);
                block.begin_round(self.rules.quantum(key));
                self.slots.push(Slot { key, state: State::Idle(block), waited: true });
            } else {
                self.close(*block);
            }
            self.last_chance = false;
            self.dispatch(key.round + 1);
        }
    }

    /// Keeps what is left of blocks. What they counted is added up at once: it takes more room than all else of them.
    fn close(&mut self, cluster: Cluster) {
        for mut closed in cluster.close() {
            if let Some(more) = closed.counts.take() {
                self.counts.get_or_insert_default().merge(&more);
            }
            self.closed.push(closed);
        }
    }

    /// Nothing will ever change: the launch ends with what was found.
    fn give_up(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            if let State::Idle(block) | State::AtOp(block) | State::Ended(block, _) = slot.state {
                self.close(*block);
            }
        }
        self.next = self.rules.blocks;
    }

    /// The block to run now, and whether it has its turn.
    fn choose(&mut self, context: &Context<'_>) -> Option<(usize, bool)> {
        if !self.rules.free() {
            let first = if self.granted.is_none() { self.first(context) } else { None };
            if let Some((i, last)) = first.filter(|(i, _)| !matches!(self.slots[*i].state, State::Running)) {
                (self.granted, self.last_chance) = (Some(self.slots[i].key.at), last);
                return Some((i, true));
            }
            if self.rules.serial {
                return None;
            }
        }
        let ahead = |slot: &Slot| match &slot.state {
            State::New => true,
            State::Idle(block) => !block.has_idled_long(context),
            _ => false,
        };
        let slots = self.slots.iter().enumerate();
        let found = slots.filter(|(_, slot)| ahead(slot)).min_by_key(|(_, slot)| slot.key).map(|(i, _)| i);
        if found.is_some() {
            self.last_chance = false;
        }
        if found.is_some() || !self.rules.free() || self.slots.iter().any(|slot| matches!(slot.state, State::Running)) {
            return found.map(|i| (i, false));
        }
        let (i, last) = self.first(context)?;
        self.last_chance = last;
        Some((i, false))
    }
}

/// A block to run.
pub(crate) struct Task {
    /// Its place in the list of blocks.
    pub(crate) at: usize,
    /// Nothing if it is to be made.
    pub(crate) block: Option<Box<Cluster>>,
    /// Its first round in instructions, if it is to be made.
    pub(crate) quantum: u64,
    /// Whether it may order blocks.
    pub(crate) granted: bool,
}

/// The order of the blocks of one launch.
pub(crate) struct Order {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Order {
    pub(crate) fn new(rules: Rules) -> Order {
        let mut table = Table {
            rules,
            slots: Vec::new(),
            next: 0,
            granted: None,
            last_chance: false,
            closed: Vec::new(),
            counts: None,
        };
        table.dispatch(0);
        Order { table: Mutex::new(table), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block to run, when there is one; nothing when the launch has come to its end.
    pub(crate) fn take(&self, context: &Context<'_>) -> Option<Task> {
        let mut table = self.lock();
        loop {
            if context.is_over() {
                self.changed.notify_all();
                return None;
            }
            table.settle(context);
            if table.slots.is_empty() {
                self.changed.notify_all();
                return None;
            }
            if let Some((i, granted)) = table.choose(context) {
                let rules = table.rules;
                let slot = &mut table.slots[i];
                let (at, quantum) = (slot.key.at, rules.quantum(slot.key));
                let block = match std::mem::replace(&mut slot.state, State::Running) {
                    State::Idle(block) | State::AtOp(block) | State::Ended(block, _) => Some(block),
                    State::New | State::Running => None,
                };
                return Some(Task { at, block, quantum, granted: granted || !rules.ordered });
            }
            table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a block back after its turn.
    pub(crate) fn give(&self, at: usize, mut block: Box<Cluster>, turn: BlockTurn) {
        let mut table = self.lock();
        let rules = table.rules;
        if table.granted == Some(at) {
            table.granted = None;
        }
        if let Some(slot) = table.slots.iter_mut().find(|slot| slot.key.at == at) {
            slot.state = match turn {
                BlockTurn::Finished | BlockTurn::Waiting => State::Ended(block, turn),
                BlockTurn::AtOp => State::AtOp(block),
                BlockTurn::RoundEnd => {
                    slot.key = rules.key(slot.key.round + 1, at);
                    block.begin_round(rules.quantum(slot.key));
                    State::Idle(block)
                }
            };
        }
        drop(table);
        self.changed.notify_all();
    }

    /// Whether a running block has its turn, and may go on with what orders blocks.
    pub(crate) fn may_act(&self, context: &Context<'_>, at: usize) -> bool {
        let mut table = self.lock();
        table.settle(context);
        let first = if table.granted.is_none() { table.first(context) } else { None };
        let own = first.is_some_and(|(i, _)| table.slots[i].key.at == at);
        if own {
            (table.granted, table.last_chance) = (Some(at), false);
        }
        own
    }

    /// What the blocks left, by their number in the grid, and blocks that a launch given up left unfinished; and what all of
    /// them counted.
    pub(crate) fn close(self) -> (Vec<Closed>, Option<Tallies>) {
        let mut table = self.table.into_inner().unwrap_or_else(PoisonError::into_inner);
        table.give_up();
        let mut closed = table.closed;
        closed.sort_by_key(|closed| closed.linear);
        (closed, table.counts)
    }
}
