//! Accesses to shared memory by the engines of the asynchronous proxy, and what is reported of them.

use crate::check::clock::{EngineView, Epoch, Relation};
use crate::check::shadow::{Clash, Conflict};
use crate::exec::memory::target::verb;
use crate::exec::run::block::{Block, Context};
use crate::exec::run::warp::Warp;
use crate::report::{Kind, RawSite, Severity};

impl Block {
    /// Checks and records accesses, as offsets and sizes, by an engine that `warp` starts at `pc`.
    pub(crate) fn engine_access(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        pc: usize,
        runs: &[(u32, u32)],
        write: bool,
        me: Epoch,
    ) {
        let view = self.clocks.engine(warp.index);
        let here = RawSite { role: verb(write), pc: pc as u32, warp: warp.index as u32, lane: 0 };
        self.engine_access_of(context, &view, here, runs, write, me);
    }

    /// As [`Block::engine_access`], by somebody who knows what `view` says.
    pub(crate) fn engine_access_of(
        &mut self,
        context: &Context<'_>,
        view: &EngineView,
        here: RawSite,
        runs: &[(u32, u32)],
        write: bool,
        me: Epoch,
    ) {
        let Some(mut shadow) = self.shared.shadow.take() else { return };
        let mut conflicts = Vec::new();
        for &run in runs {
            shadow.engine_access(view, run, write, me, &mut conflicts);
        }
        self.shared.shadow = Some(shadow);
        for conflict in conflicts {
            self.report_engine(context, view, here, conflict);
        }
    }

    #[cold]
    fn report_engine(&mut self, context: &Context<'_>, view: &EngineView, here: RawSite, conflict: Conflict) {
        let earlier = conflict.earlier;
        let ordered = view.ordered().relation(earlier, u32::MAX) == Relation::Ordered;
        let (kind, first) = match conflict.clash {
            Clash::InFlight => (Kind::InFlight, "copies to"),
            Clash::WriteAfterRead => (Kind::RaceWriteAfterRead, "read"),
            _ if ordered => (Kind::MissingProxyFence, "write"),
            Clash::WriteWrite => (Kind::RaceWriteWrite, "write"),
            Clash::ReadAfterWrite => (Kind::RaceReadAfterWrite, "write"),
        };
        let place = self.shared_name(context, conflict.offset);
        let sites = [self.site_of(first, earlier), here];
        let what = here.role;
        self.report(context, kind, Severity::Error, &sites, || match kind {
            Kind::InFlight => format!("asynchronous {what} of bytes still in flight: {place}"),
            Kind::MissingProxyFence => {
                format!("no fence.proxy.async between a write and the asynchronous {what} that follows it, on {place}")
            }
            _ => format!("race ({first} then asynchronous {what}) on {place}"),
        });
    }

    /// Where an access was made, or the work of an engine begun.
    pub(crate) fn site_of(&self, role: &'static str, earlier: Epoch) -> RawSite {
        let agent = earlier.warp();
        let warp = self.agents.owner(agent).or_else(|| self.issuers.get(agent as usize).copied()).unwrap_or(0);
        let lane = if self.agents.is_warp(agent) { earlier.lane() } else { 0 };
        RawSite { role, pc: earlier.pc(), warp, lane }
    }
}
