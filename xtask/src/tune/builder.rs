//! Builds ahead: threads that compile what was proposed while devices measure what was built. Whoever needs a build
//! waits for it; whoever proposes does not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Result, anyhow};
use kbench::evidence::BuildFailure;
use sdpa_kernel::registry::Variant;

use crate::build::{BuildSet, Built, build_one, target};
use crate::layout::Layout;
use crate::toolchain::Toolchain;

/// A build of one variant for one architecture; the outer error is ours. `None` where it was not worth it.
type Finished = Result<Option<Result<Built, BuildFailure>>, String>;

/// Architectures to build a variant for, one after the other.
struct Order {
    variant: Variant,
    arches: VecDeque<String>,
}

/// What is to be built and what is.
#[derive(Default)]
struct State {
    queue: VecDeque<Order>,
    /// By variant and architecture; `None` while it is queued or under way.
    builds: BTreeMap<(String, String), Option<Finished>>,
    closed: bool,
}

/// Whether a build's figures let its variant go on.
pub type Worth<'a> = Box<dyn Fn(&Built) -> bool + Sync + 'a>;

/// The builds of a search.
pub struct Builder<'a> {
    layout: &'a Layout,
    toolchain: &'a Toolchain,
    arches: Vec<String>,
    /// Whether a build is worth one for the next architecture.
    worth: Worth<'a>,
    state: Mutex<State>,
    changed: Condvar,
}

impl<'a> Builder<'a> {
    pub fn new(layout: &'a Layout, toolchain: &'a Toolchain, arches: &[String], worth: Worth<'a>) -> Builder<'a> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Builder { layout, toolchain, arches: arches.to_vec(), worth, state, changed }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A thread that died while it held the lock left whole entries behind: each is written in one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The architectures of a variant, each once.
    fn targets(&self, variant: &Variant) -> Vec<String> {
        let mut targets: Vec<String> = self.arches.iter().map(|arch| target(variant, arch).to_owned()).collect();
        targets.dedup();
        targets
    }

    /// Whether the variant's build for its first architecture is there and rules out that another is worth one.
    fn is_needless(&self, state: &State, variant: &Variant, arch: &str) -> bool {
        let Some(first) = self.targets(variant).into_iter().next().filter(|first| first != arch) else { return false };
        match state.builds.get(&(variant.name.clone(), first)) {
            Some(Some(Ok(Some(Ok(built))))) => !(self.worth)(built),
            Some(Some(Ok(Some(Err(_))))) => true,
            _ => false,
        }
    }

    /// Queues variants that are not queued yet: all architectures at once, or each only when the one before is worth
    /// it, which takes longer for one variant and less for many.
    pub fn want(&self, variants: &[Variant], in_stages: bool) {
        let mut state = self.state();
        for variant in variants {
            let mut arches: VecDeque<String> = self.targets(variant).into();
            arches.retain(|arch| !state.builds.contains_key(&(variant.name.clone(), arch.clone())));
            for arch in &arches {
                state.builds.insert((variant.name.clone(), arch.clone()), None);
            }
            let order = |arches| Order { variant: variant.clone(), arches };
            match in_stages {
                true if arches.is_empty() => {}
                true => state.queue.push_back(order(arches)),
                false => state.queue.extend(arches.into_iter().map(|arch| order(VecDeque::from([arch])))),
            }
        }
        self.changed.notify_all();
    }

    /// Builds of these variants, which were wanted before; waits for those that are under way and worth it.
    pub fn wait(&self, variants: &[Variant]) -> Result<BuildSet> {
        let mut set = BuildSet::default();
        let mut state = self.state();
        for variant in variants {
            for arch in self.targets(variant) {
                let key = (variant.name.clone(), arch);
                let finished = loop {
                    if self.is_needless(&state, variant, &key.1) {
                        break Ok(None);
                    }
                    match state.builds.get(&key) {
                        None => return Err(anyhow!("`{}` was not asked for", variant.name)),
                        Some(Some(finished)) => break finished.clone(),
                        Some(None) if state.closed => return Err(anyhow!("the search is over")),
                        Some(None) => {
                            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                        }
                    }
                };
                match finished.map_err(|why| anyhow!("{why}"))? {
                    Some(Ok(built)) => set.built.push(built),
                    Some(Err(failure)) => set.failures.push(failure),
                    None => {}
                }
            }
        }
        Ok(set)
    }

    /// Builds until [`Builder::close`]: the body of a thread.
    pub fn work(&self) {
        loop {
            let mut state = self.state();
            let Order { variant, mut arches } = loop {
                if state.closed {
                    return;
                }
                match state.queue.pop_front() {
                    Some(next) => break next,
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            let Some(arch) = arches.pop_front() else { continue };
            if self.is_needless(&state, &variant, &arch) {
                state.builds.insert((variant.name.clone(), arch), Some(Ok(None)));
                self.changed.notify_all();
                continue;
            }
            drop(state);
            let built =
                build_one(self.layout, self.toolchain, &variant, &arch, &[]).map_err(|error| format!("{error:#}"));
            let goes_on = matches!(&built, Ok(Ok(built)) if arches.is_empty() || (self.worth)(built));
            let mut state = self.state();
            state.builds.insert((variant.name.clone(), arch), Some(built.map(Some)));
            if goes_on && !arches.is_empty() {
                // In front: its first build is done, and somebody waits for the whole.
                state.queue.push_front(Order { variant, arches });
            } else {
                for arch in arches {
                    state.builds.insert((variant.name.clone(), arch), Some(Ok(None)));
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Ends the threads, each after what it is building.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}
