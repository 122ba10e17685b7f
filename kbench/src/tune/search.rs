//! The built-in search: elites by time over the control's, children by mutation of elites in two layers. A generation is
//! proposed from the results of those up to [`LAG`] + 1 before it and from nothing else, so the proposals of a seed do
//! not depend on who measures faster, on how many devices, or on where a run was interrupted.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::insight::{Effect, effects, predicted};
use super::record::{Evaluation, Generation, Phase, Plan, Proposal, Stopped};
use super::space::{Dimension, Space, Toggles, structure};
use stats::uniform_below;

/// Configurations of a generation.
pub const GENERATION: usize = 4;
/// Generations that may be under way while the next is proposed: its builds run while the devices measure those.
pub const LAG: u32 = 2;
/// A child differs from its parent in at most this many dimensions.
const REACH: usize = 2;
/// Random configurations among which the least alike those before it is taken, while nothing is known.
const DRAWS: usize = 24;

/// The elites: the fastest of each structure, fastest first, at most `keep`; where fewer structures have a time, the
/// fastest of the rest fill up. A function of the set of evaluations, whatever their order.
pub fn elites<'e>(
    dimensions: &[Dimension],
    keep: usize,
    evaluations: impl IntoIterator<Item = &'e Evaluation>,
) -> Vec<&'e Evaluation> {
    let mut timed: Vec<(f64, &Evaluation)> =
        evaluations.into_iter().filter_map(|e| Some((e.score().filter(|s| s.is_finite())?, e))).collect();
    timed.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.name.cmp(&b.1.name)));
    let mut structures = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) =
        timed.into_iter().partition(|(_, e)| structures.insert(structure(dimensions, &e.toggles)));
    let mut kept: Vec<(f64, &Evaluation)> = first.into_iter().chain(rest).take(keep).collect();
    kept.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.name.cmp(&b.1.name)));
    kept.into_iter().map(|(_, e)| e).collect()
}

/// A search under way: what was proposed, and what came of it.
#[derive(Clone, Debug)]
pub struct Search<'s> {
    plan: &'s Plan,
    space: &'s Space,
    generations: Vec<Generation>,
    evaluations: BTreeMap<String, Evaluation>,
    /// Toggles that the profile of a configuration speaks of.
    advice: BTreeMap<String, Vec<String>>,
}

impl<'s> Search<'s> {
    /// Nothing is proposed yet.
    pub fn new(plan: &'s Plan, space: &'s Space) -> Search<'s> {
        Search { plan, space, generations: Vec::new(), evaluations: BTreeMap::new(), advice: BTreeMap::new() }
    }

    /// Takes up a generation: one of [`Search::propose`], or one that the record holds.
    pub fn begin(&mut self, generation: Generation) {
        self.generations.push(generation);
    }

    /// Takes up a result.
    pub fn record(&mut self, evaluation: Evaluation) {
        self.evaluations.insert(evaluation.name.clone(), evaluation);
    }

    /// Takes up the toggles that the profile of a configuration speaks of, the likeliest first.
    pub fn advise(&mut self, name: &str, toggles: Vec<String>) {
        self.advice.insert(name.to_owned(), toggles);
    }

    /// The result of a configuration, if it has one.
    pub fn evaluation(&self, name: &str) -> Option<&Evaluation> {
        self.evaluations.get(name)
    }

    /// All results, in the order in which they were proposed.
    pub fn evaluations(&self) -> Vec<&Evaluation> {
        self.of_generations(|_| true)
    }

    fn of_generations(&self, which: impl Fn(&Generation) -> bool) -> Vec<&Evaluation> {
        let chosen = self.generations.iter().filter(|g| which(g));
        chosen.flat_map(|g| &g.proposals).filter_map(|p| self.evaluations.get(&p.name)).collect()
    }

    /// Names of everything that was proposed.
    pub fn seen(&self) -> BTreeSet<String> {
        self.generations.iter().flat_map(|g| &g.proposals).map(|p| p.name.clone()).collect()
    }

    /// How many generations were proposed.
    pub fn generations(&self) -> u32 {
        self.generations.len() as u32
    }

    /// The elites of everything that is known.
    pub fn elites(&self) -> Vec<&Evaluation> {
        elites(self.space.dimensions(), self.plan.elites, self.evaluations.values())
    }

    /// What the next generation may look at.
    fn known(&self) -> Vec<&Evaluation> {
        let next = self.generations();
        self.of_generations(|g| g.index + LAG < next)
    }

    /// The elites and effects that the next generation is proposed from.
    pub fn known_elites(&self) -> (Vec<&Evaluation>, Vec<Effect>) {
        let known = self.known();
        let effects = effects(self.space.dimensions(), &known);
        (elites(self.space.dimensions(), self.plan.elites, known), effects)
    }

    /// Whether everything that the next generation may look at is known.
    pub fn is_ready(&self) -> bool {
        let next = self.generations();
        let mut waited_for = self.generations.iter().filter(|g| g.index + LAG < next).flat_map(|g| &g.proposals);
        waited_for.all(|p| self.evaluations.contains_key(&p.name))
    }

    /// Whether everything that was proposed is known.
    pub fn is_settled(&self) -> bool {
        self.generations.iter().flat_map(|g| &g.proposals).all(|p| self.evaluations.contains_key(&p.name))
    }

    /// Why nothing more is to be proposed, if so.
    pub fn stopped(&self) -> Option<Stopped> {
        if self.seen().len() >= self.plan.budget as usize {
            return Some(Stopped::Budget);
        }
        if self.since_change() >= self.plan.patience as usize {
            return Some(Stopped::Converged);
        }
        self.space.unseen(&self.seen()).is_empty().then_some(Stopped::SpaceExhausted)
    }

    /// Evaluations, of those the next generation may look at, since the elites last changed.
    fn since_change(&self) -> usize {
        let known = self.known();
        let names = |count: usize| -> Vec<&str> {
            let some = elites(self.space.dimensions(), self.plan.elites, known[..count].iter().copied());
            some.into_iter().map(|e| e.name.as_str()).collect()
        };
        let now = names(known.len());
        if now.is_empty() {
            return 0;
        }
        (0..known.len()).rev().take_while(|count| names(*count) == now).count()
    }

    /// How many configurations the next generation has room for.
    pub fn room(&self) -> usize {
        GENERATION.min((self.plan.budget as usize).saturating_sub(self.seen().len()))
    }

    /// The next generation, with what an external proposer wants tried in its first places. Fewer than
    /// [`GENERATION`] where the budget or the space ends.
    pub fn propose(&self, first: Vec<Proposal>) -> Generation {
        let index = self.generations();
        let mut rng = ChaCha8Rng::seed_from_u64(self.plan.seed.wrapping_mul(0x9e37_79b9).wrapping_add(index.into()));
        let mut proposals = first;
        proposals.truncate(self.room());
        let mut seen = self.seen();
        seen.extend(proposals.iter().map(|p| p.name.clone()));
        let (elites, effects) = self.known_elites();
        for slot in proposals.len()..self.room() {
            let choice = if elites.is_empty() {
                self.start(&seen).or_else(|| self.unlike(&seen, &mut rng))
            } else {
                self.child(slot, &elites, &effects, &seen, &mut rng)
            };
            let Some((toggles, origin)) = choice else { break };
            let name = self.space.name(toggles);
            seen.insert(name.clone());
            proposals.push(Proposal { name, toggles: toggles.clone(), origin });
        }
        Generation { index, phase: Phase::Search, proposals, warnings: Vec::new() }
    }

    /// Everything that is left, in the order of the space.
    pub fn sweep(&self) -> Generation {
        let proposal = |toggles: &Toggles| Proposal {
            name: self.space.name(toggles),
            toggles: toggles.clone(),
            origin: "sweep".to_owned(),
        };
        let proposals = self.space.unseen(&self.seen()).into_iter().map(proposal).collect();
        Generation { index: self.generations(), phase: Phase::Sweep, proposals, warnings: Vec::new() }
    }

    /// A registered variant to begin with.
    fn start(&self, seen: &BTreeSet<String>) -> Option<(&'s Toggles, String)> {
        let starts = self.plan.starts.iter().filter(|t| !seen.contains(&self.space.name(t)));
        // Half of what is proposed before anything is known; the other half spreads over the space.
        let early = GENERATION * (LAG as usize + 1) / 2;
        let used = self.plan.starts.len() - starts.clone().count();
        starts.take(early.saturating_sub(used)).map(|t| (t, "registered variant".to_owned())).next()
    }

    /// Of some random configurations the one whose values were proposed least often so far.
    fn unlike(&self, seen: &BTreeSet<String>, rng: &mut ChaCha8Rng) -> Option<(&'s Toggles, String)> {
        let unseen = self.space.unseen(seen);
        let taken: Vec<&Toggles> = self.generations.iter().flat_map(|g| &g.proposals).map(|p| &p.toggles).collect();
        let alike = |t: &Toggles| -> usize {
            taken.iter().map(|other| self.space.dimensions().len() - self.space.distance(t, other)).sum()
        };
        let draws = (0..DRAWS.min(unseen.len() * DRAWS)).map(|_| unseen[uniform_below(rng, unseen.len())]);
        let pick = draws.min_by_key(|t| (alike(t), self.space.name(t)))?;
        Some((self.of_space(pick), "unlike those before".to_owned()))
    }

    /// The configuration as the space holds it, for as long as the space.
    fn of_space(&self, toggles: &Toggles) -> &'s Toggles {
        let found = self.space.valid().iter().find(|t| *t == toggles);
        found.expect("what was drawn from the space is in it")
    }

    /// A child by the slot's operator, or by the next one that has any left.
    fn child(
        &self,
        slot: usize,
        elites: &[&Evaluation],
        effects: &[Effect],
        seen: &BTreeSet<String>,
        rng: &mut ChaCha8Rng,
    ) -> Option<(&'s Toggles, String)> {
        let unseen = self.space.unseen(seen);
        let family = |toggles: &Toggles| self.space.structure(toggles);
        let near = |t: &Toggles, parent: &Evaluation| self.space.distance(t, &parent.toggles) <= REACH;
        let is_micro = |t: &Toggles, parent: &Evaluation| near(t, parent) && family(t) == family(&parent.toggles);
        let is_macro = |t: &Toggles, parent: &Evaluation| near(t, parent) && family(t) != family(&parent.toggles);
        let best = |pool: Vec<&&Toggles>| -> Option<&'s Toggles> {
            let key = |t: &Toggles| (predicted(effects, t), self.space.name(t));
            let order = |a: &(f64, String), b: &(f64, String)| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1));
            pool.into_iter().min_by(|a, b| order(&key(a), &key(b))).map(|t| self.of_space(t))
        };
        let of_any = |layer: &dyn Fn(&Toggles, &Evaluation) -> bool, words: &str| {
            let pool = unseen.iter().filter(|t| elites.iter().any(|e| layer(t, e))).collect();
            let child = best(pool)?;
            let parent = elites.iter().find(|e| layer(child, e))?;
            Some((child, format!("{words} mutation of {}", parent.name)))
        };
        // Another value of one toggle that an elite's profile speaks of: the fastest elite's likeliest first.
        let advised = || {
            let advice =
                elites.iter().flat_map(|e| self.advice.get(&e.name).into_iter().flatten().map(move |t| (e, t)));
            advice.into_iter().find_map(|(elite, toggle)| {
                let only = |t: &&&Toggles| {
                    self.space.distance(t, &elite.toggles) == 1 && t.get(toggle) != elite.toggles.get(toggle)
                };
                let child = best(unseen.iter().filter(only).collect())?;
                Some((child, format!("{toggle}, as the profile of {} suggests", elite.name)))
            })
        };
        let mut random_child = || {
            let parent = elites[uniform_below(rng, elites.len())];
            let pool: Vec<&&Toggles> = unseen.iter().filter(|t| near(t, parent)).collect();
            let pick = pool.get(uniform_below(rng, pool.len().max(1)))?;
            Some((self.of_space(pick), format!("random mutation of {}", parent.name)))
        };
        let stranger = || {
            let tried: BTreeSet<String> =
                self.generations.iter().flat_map(|g| &g.proposals).map(|p| family(&p.toggles)).collect();
            let pool = unseen.iter().filter(|t| !tried.contains(&family(t))).collect();
            Some((best(pool)?, "best guess among untried structures".to_owned()))
        };
        let anywhere = || Some((best(unseen.iter().collect())?, "best guess".to_owned()));
        for turn in 0..=GENERATION {
            let found = match (slot + turn) % (GENERATION + 1) {
                0 => advised().or_else(|| of_any(&is_micro, "micro")),
                1 => of_any(&is_macro, "macro"),
                2 => random_child(),
                3 => stranger(),
                _ => anywhere(),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}
