//! Host code in the rounds of one shape: a process each, for as long as the shape is there. It stands still while others are
//! timed, and may leave nothing on the device then. What one does wrong is its own failure; the rounds go on. Leaves to
//! others: what is asked of a process (`callable`).

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use kbench::evidence::{Cache, Mode};
use kbench::subject::Subject;
use operators::Operator;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::contestant::launches_within_target;
use super::quiet::Quiet;
use super::sitting::Field;
use super::{Ground, Taken};
use crate::callable::{self, Guest, Processes, Timed, Wanted};

/// Those of a field that have not failed, and the processes of a shape.
pub(super) struct Guests {
    all: Vec<Guest>,
    processes: BTreeMap<String, Processes>,
    /// Draws values that nobody who was started could know.
    rng: ChaCha8Rng,
    watch: Watch,
}

/// Whether it can be seen that somebody works on the device in others' turns.
enum Watch {
    /// Nobody was there yet who had to be watched.
    None,
    By(Quiet),
    /// The device was not quiet before.
    Blind(String),
}

impl Watch {
    fn begin(ground: &Ground) -> Result<Watch> {
        let quiet = Quiet::new()?;
        Ok(match quiet.disturbed(ground.gpu)? {
            None => Watch::By(quiet),
            Some(time) => Watch::Blind(format!("another process had it for {} us before", time.as_micros())),
        })
    }
}

impl Guests {
    /// Nobody yet.
    pub(super) fn new(order_seed: u64) -> Guests {
        let rng = ChaCha8Rng::seed_from_u64(order_seed);
        Guests { all: Vec::new(), processes: BTreeMap::new(), rng, watch: Watch::None }
    }

    /// Ends the processes of a shape: compilers may run at the first call on another, and then no more.
    pub(super) fn part(&mut self) {
        self.processes.clear();
    }

    /// Starts a process for each variant that is host code, or goes on with it; who cannot be started has failed.
    pub(super) fn invite(
        &mut self,
        ground: &Ground,
        operator: &mut dyn Operator,
        field: &mut Field,
        places: u64,
        taken: &mut Taken,
    ) -> Result<()> {
        self.rng = ChaCha8Rng::seed_from_u64(ground.job.order_seed);
        self.rng.set_stream(places.wrapping_add(1));
        for module in &ground.job.modules {
            let Some(call) = callable::of(module) else { continue };
            if matches!(self.watch, Watch::None) {
                self.watch = Watch::begin(ground)?;
            }
            let subject = Subject::plain(&module.variant);
            field.about_to_time(&subject);
            let mut known = taken.samples.host_code.get(&module.variant).cloned().unwrap_or_default();
            if let Watch::Blind(why) = &self.watch {
                known.not_quiet = Some(why.clone());
            }
            let started = field.check_verified(ground, &module.variant).and_then(|()| {
                let sets = field.problems.iter().map(|problem| operator.handed(problem)).collect::<Result<_>>()?;
                let wanted = Wanted {
                    task: &ground.job.task,
                    call,
                    who: &module.variant,
                    problems: &field.problems,
                    sets,
                    warmup: ground.job.suite.timing.warmup as usize,
                    within: launches_within_target,
                    flush: ground.flush.len(),
                    known,
                };
                let processes = self.processes.entry(module.variant.clone()).or_default();
                let mut guest = Guest::start(wanted, processes, &mut self.rng)?;
                at_rest(&mut guest, &self.watch, ground)?;
                Ok(guest)
            });
            match started {
                Ok(guest) => self.all.push(guest),
                Err(error) => field.fail(taken, &subject, &format!("{error:#}")),
            }
        }
        Ok(())
    }

    /// Who they are, by place.
    pub(super) fn subjects(&self) -> impl Iterator<Item = (usize, &Subject)> {
        self.all.iter().map(|guest| &guest.subject).enumerate()
    }

    /// Begins a sitting with each of them.
    pub(super) fn sit(&mut self, ground: &Ground, field: &mut Field, taken: &mut Taken) {
        for guest in &mut self.all {
            if field.has_failed(&guest.subject) {
                continue;
            }
            field.about_to_time(&guest.subject);
            let sat = guest.sit(&mut self.rng).and_then(|()| at_rest(guest, &self.watch, ground));
            if let Err(error) = sat {
                field.fail(taken, &guest.subject, &format!("{error:#}"));
            }
            taken.samples.host_code.entry(guest.subject.who.clone()).or_default().join(guest.code.clone());
        }
    }

    /// Times a block of one of them; none where a graph cannot be made of it. `number` is the block's place in the samples.
    pub(super) fn block(
        &mut self,
        ground: &Ground,
        index: usize,
        (mode, cache): (Mode, Cache),
        number: usize,
    ) -> Result<Option<Timed>> {
        let guest = &mut self.all[index];
        let timed = guest.block(mode, cache, number, &mut self.rng)?;
        at_rest(guest, &self.watch, ground)?;
        Ok(timed)
    }

    /// When all rounds are over: what was asked for after each block is computed again by who was not timed.
    pub(super) fn leave(&mut self, ground: &Ground, field: &mut Field, taken: &mut Taken) {
        for guest in std::mem::take(&mut self.all) {
            let subject = guest.subject.clone();
            if field.has_failed(&subject) {
                continue;
            }
            field.about_to_time(&subject);
            let none = Default::default();
            let verified = ground.job.verified.get(&subject.who).unwrap_or(&none);
            let processes = self.processes.entry(subject.who.clone()).or_default();
            match guest.conclude(verified, processes, &mut self.rng) {
                Ok(wrong) => wrong.into_iter().for_each(|at| taken.samples.blocks[at].outputs_verified = false),
                Err(error) => field.fail(taken, &subject, &format!("{error:#}")),
            }
        }
    }
}

/// Has a guest stand still, and sees that it left nothing behind that would share the device with whoever comes next.
fn at_rest(guest: &mut Guest, watch: &Watch, ground: &Ground) -> Result<()> {
    guest.pause();
    let Watch::By(quiet) = watch else { return Ok(()) };
    if let Some(time) = quiet.disturbed(ground.gpu)? {
        bail!("keeps the device busy while others are timed: for {} us at once", time.as_micros());
    }
    Ok(())
}
