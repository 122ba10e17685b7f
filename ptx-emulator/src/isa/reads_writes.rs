//! Which rows an instruction reads and which it writes.

use crate::isa::alu_table::{AluOp, visit_rows};
use crate::isa::engines::{BulkWay, ClusterOp, FactorA, TensorWay, Wgmma};
use crate::isa::op::{MbarOp, Op};
use crate::isa::slot::{Class, Role, Slot};

/// The accumulator is read and replaced, which one visit cannot say.
fn visit_wgmma(wgmma: &mut Wgmma, visit: &mut impl FnMut(Class, &mut u16, Role)) {
    visit(Class::D, &mut wgmma.b, Role::Read);
    match &mut wgmma.a {
        FactorA::Registers(rows) => rows.iter_mut().for_each(|row| visit(Class::W, row, Role::Read)),
        FactorA::Shared(descriptor) => visit(Class::D, descriptor, Role::Read),
    }
    wgmma.d.iter_mut().for_each(|row| visit(Class::W, row, Role::ReadResult));
    wgmma.d.iter_mut().for_each(|row| visit(Class::W, row, Role::Write));
}

/// Where a 32-bit register is moved, and from where.
pub(crate) fn moved(op: &Op) -> Option<(u16, u16)> {
    match op {
        Op::Alu(alu) if alu.op == AluOp::MovW => Some((alu.d, alu.a)),
        _ => None,
    }
}

/// Calls `visit` with every row of a register that is not a predicate.
pub(crate) fn visit(op: &mut Op, visit: &mut impl FnMut(Class, &mut u16, Role)) {
    let slot = |visit: &mut dyn FnMut(Class, &mut u16, Role), slot: &mut Slot, role| {
        visit(slot.class, &mut slot.row, role);
    };
    match op {
        Op::Alu(alu) => visit_rows(alu, visit),
        Op::Bra { .. } | Op::Exit | Op::Trap | Op::Yield | Op::Fence { .. } | Op::CopyCommit | Op::CopyWait { .. } => {}
        Op::ProxyFence { .. } | Op::WgmmaFence | Op::WgmmaCommit | Op::BulkCommit | Op::BulkWait { .. } => {}
        Op::WgmmaWait { rows, .. } => rows.iter_mut().for_each(|row| visit(Class::W, row, Role::Read)),
        Op::Held(held) => {
            held.reads.iter_mut().chain(&mut held.writes).for_each(|row| visit(Class::W, row, Role::Read))
        }
        Op::Wgmma(wgmma) => visit_wgmma(wgmma, visit),
        Op::Elect(elect) => {
            visit(Class::W, &mut elect.members, Role::Read);
            elect.lane.iter_mut().for_each(|row| visit(Class::W, row, Role::Write));
        }
        Op::Bulk(copy) => {
            slot(visit, &mut copy.dst.base, Role::Read);
            slot(visit, &mut copy.src.base, Role::Read);
            visit(Class::W, &mut copy.bytes, Role::Read);
            match &mut copy.way {
                BulkWay::Fetch { barrier, multicast } => {
                    slot(visit, &mut barrier.base, Role::Read);
                    multicast.iter_mut().for_each(|row| visit(Class::W, row, Role::Read));
                }
                BulkWay::Pass { barrier } => slot(visit, &mut barrier.base, Role::Read),
                BulkWay::Send { .. } => {}
            }
        }
        Op::Tensor(copy) => {
            slot(visit, &mut copy.shared.base, Role::Read);
            slot(visit, &mut copy.map.base, Role::Read);
            copy.coordinates.iter_mut().for_each(|row| visit(Class::W, row, Role::Read));
            if let TensorWay::Load { barrier, multicast } = &mut copy.way {
                slot(visit, &mut barrier.base, Role::Read);
                multicast.iter_mut().for_each(|row| visit(Class::W, row, Role::Read));
            }
        }
        Op::Cluster(op) => match &mut **op {
            ClusterOp::Arrive { .. } | ClusterOp::Wait => {}
            ClusterOp::Map { dst, src, rank, .. } => {
                slot(visit, src, Role::Read);
                visit(Class::W, rank, Role::Read);
                slot(visit, dst, Role::Write);
            }
            ClusterOp::Rank { dst, src, .. } => {
                slot(visit, src, Role::Read);
                visit(Class::W, dst, Role::Write);
            }
        },
        Op::Clock { dst } => slot(visit, dst, Role::Write),
        Op::ActiveMask { dst } => visit(Class::W, dst, Role::Write),
        Op::IsSpace { addr, .. } => slot(visit, addr, Role::Read),
        Op::Load(load) => {
            slot(visit, &mut load.addr.base, Role::Read);
            load.dst.iter_mut().for_each(|dst| slot(visit, dst, Role::Write));
        }
        Op::Store(store) => {
            slot(visit, &mut store.addr.base, Role::Read);
            store.src.iter_mut().for_each(|src| slot(visit, src, Role::Read));
        }
        Op::Atom(atom) => {
            slot(visit, &mut atom.addr.base, Role::Read);
            slot(visit, &mut atom.a, Role::Read);
            atom.b.iter_mut().for_each(|b| slot(visit, b, Role::Read));
            atom.dst.iter_mut().for_each(|dst| slot(visit, dst, Role::WriteSome));
        }
        Op::CopyAsync(copy) => {
            slot(visit, &mut copy.dst.base, Role::Read);
            slot(visit, &mut copy.src.base, Role::Read);
            copy.src_bytes.iter_mut().for_each(|row| visit(Class::W, row, Role::Read));
        }
        Op::CopyArrive { addr, .. } => slot(visit, &mut addr.base, Role::Read),
        Op::Barrier(barrier) => {
            visit(Class::W, &mut barrier.id, Role::Read);
            barrier.count.iter_mut().for_each(|row| visit(Class::W, row, Role::Read));
            barrier.dst.iter_mut().for_each(|dst| slot(visit, dst, Role::WriteSome));
        }
        Op::WarpSync { mask } => visit(Class::W, mask, Role::Read),
        Op::Shuffle(shuffle) => {
            for row in [&mut shuffle.src, &mut shuffle.lane, &mut shuffle.clamp, &mut shuffle.members] {
                visit(Class::W, row, Role::Read);
            }
            visit(Class::W, &mut shuffle.dst, Role::Write);
        }
        Op::Vote(vote) => {
            visit(Class::W, &mut vote.members, Role::Read);
            slot(visit, &mut vote.dst, Role::Write);
        }
        Op::Reduce(reduce) => {
            visit(Class::W, &mut reduce.src, Role::Read);
            visit(Class::W, &mut reduce.members, Role::Read);
            visit(Class::W, &mut reduce.dst, Role::Write);
        }
        Op::Match(matching) => {
            slot(visit, &mut matching.src, Role::Read);
            visit(Class::W, &mut matching.members, Role::Read);
            visit(Class::W, &mut matching.dst, Role::Write);
        }
        Op::Matrix(matrix) => {
            slot(visit, &mut matrix.addr.base, Role::Read);
            let role = if matrix.store { Role::Read } else { Role::Write };
            matrix.regs.iter_mut().for_each(|row| visit(Class::W, row, role));
        }
        Op::MoveMatrix { dst, src } => {
            visit(Class::W, src, Role::Read);
            visit(Class::W, dst, Role::Write);
        }
        Op::Mma(mma) => {
            mma.a.iter_mut().for_each(|row| visit(Class::W, row, Role::Read));
            for half in &mut mma.halves {
                half.b.iter_mut().chain(&mut half.c).for_each(|row| visit(Class::W, row, Role::Read));
            }
            for half in &mut mma.halves {
                half.d.iter_mut().for_each(|row| visit(Class::W, row, Role::Write));
            }
        }
        Op::Wmma(wmma) => {
            slot(visit, &mut wmma.addr.base, Role::Read);
            wmma.stride.iter_mut().for_each(|row| visit(Class::W, row, Role::Read));
            let role = if wmma.store { Role::Read } else { Role::Write };
            wmma.regs.iter_mut().for_each(|row| visit(Class::W, row, role));
        }
        Op::Mbar(mbar) => {
            mbar.addr.iter_mut().for_each(|addr| slot(visit, &mut addr.base, Role::Read));
            match &mut mbar.op {
                MbarOp::Init { count } => visit(Class::W, count, Role::Read),
                MbarOp::Inval => {}
                MbarOp::Arrive { count, state, .. } => {
                    count.iter_mut().for_each(|row| visit(Class::W, row, Role::Read));
                    state.iter_mut().for_each(|row| visit(Class::D, row, Role::WriteSome));
                }
                MbarOp::ExpectTx { bytes, state, .. } => {
                    visit(Class::W, bytes, Role::Read);
                    state.iter_mut().for_each(|row| visit(Class::D, row, Role::WriteSome));
                }
                MbarOp::CompleteTx { bytes } => visit(Class::W, bytes, Role::Read),
                MbarOp::TestState { state, .. } => visit(Class::D, state, Role::Read),
                MbarOp::TestParity { parity, .. } => visit(Class::W, parity, Role::Read),
                MbarOp::PendingCount { dst, state } => {
                    visit(Class::D, state, Role::Read);
                    visit(Class::W, dst, Role::Write);
                }
            }
        }
        Op::Print(print) => {
            [&mut print.format, &mut print.values].into_iter().for_each(|part| slot(visit, part, Role::Read));
            visit(Class::W, &mut print.dst, Role::Write);
        }
        Op::AssertFail { message, file, line } => {
            [message, file, line].into_iter().for_each(|part| slot(visit, part, Role::Read));
        }
    }
}
