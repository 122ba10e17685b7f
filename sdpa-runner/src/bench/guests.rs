//! Host code in the rounds of one shape and distribution: a process each, for as long as the field is there. What one does
//! wrong is its own failure; the rounds go on. Leaves to others: what is asked of a process (`callable`).

use anyhow::Result;
use kbench::evidence::Mode;
use kbench::subject::Subject;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::contestant::launches_within_target;
use super::sitting::Field;
use super::{Ground, Taken};
use crate::callable::{self, Guest, Timed};
use crate::operator::Operator;

/// Those of a field that have not failed.
pub(super) struct Guests {
    all: Vec<Guest>,
    /// Draws values that nobody who was started could know.
    rng: ChaCha8Rng,
}

impl Guests {
    /// Starts a process for each variant that is host code; who cannot be started has failed.
    pub(super) fn invite(
        ground: &Ground,
        operator: &mut dyn Operator,
        field: &mut Field,
        places: u64,
        taken: &mut Taken,
    ) -> Guests {
        let mut rng = ChaCha8Rng::seed_from_u64(ground.job.order_seed);
        rng.set_stream(places.wrapping_add(1));
        let mut guests = Guests { all: Vec::new(), rng };
        let timing = &ground.job.suite.timing;
        for module in &ground.job.modules {
            let Some(call) = callable::of(module) else { continue };
            let who = Subject::plain(&module.variant);
            field.about_to_time(&who);
            let started = field.check_verified(ground, &module.variant).and_then(|()| {
                let sets = field.problems.iter().map(|problem| operator.handed(problem)).collect::<Result<_>>()?;
                let task = (&ground.job.task, call, module.variant.as_str());
                let most = (timing.launches as usize, timing.warmup as usize);
                Guest::start(task, &field.problems, sets, most, launches_within_target, &mut guests.rng)
            });
            match started {
                Ok(guest) => guests.all.push(guest),
                Err(error) => field.fail(taken, &who, &format!("{error:#}")),
            }
        }
        guests
    }

    /// Who they are, by place.
    pub(super) fn subjects(&self) -> impl Iterator<Item = (usize, &Subject)> {
        self.all.iter().map(|guest| &guest.subject).enumerate()
    }

    /// Begins a sitting with each of them.
    pub(super) fn sit(&mut self, field: &mut Field, taken: &mut Taken) {
        for guest in &mut self.all {
            if field.has_failed(&guest.subject) {
                continue;
            }
            field.about_to_time(&guest.subject);
            if let Err(error) = guest.sit(&mut self.rng) {
                field.fail(taken, &guest.subject, &format!("{error:#}"));
            }
            taken.samples.host_code.entry(guest.subject.who.clone()).or_default().join(guest.code.clone());
        }
    }

    /// Times a block of one of them; none where a graph cannot be made of it. `number` is the block's place in the samples.
    pub(super) fn block(&mut self, index: usize, mode: Mode, flush: usize, number: usize) -> Result<Option<Timed>> {
        self.all[index].block(mode, flush, number, &mut self.rng)
    }

    /// When all rounds are over: what was asked for after each block is computed again by who was not timed.
    pub(super) fn leave(mut self, ground: &Ground, field: &mut Field, taken: &mut Taken) {
        for guest in std::mem::take(&mut self.all) {
            let subject = guest.subject.clone();
            if field.has_failed(&subject) {
                continue;
            }
            field.about_to_time(&subject);
            let none = Default::default();
            let verified = ground.job.verified.get(&subject.who).unwrap_or(&none);
            match guest.conclude(verified, &mut self.rng) {
                Ok(wrong) => wrong.into_iter().for_each(|at| taken.samples.blocks[at].outputs_verified = false),
                Err(error) => field.fail(taken, &subject, &format!("{error:#}")),
            }
        }
    }
}
