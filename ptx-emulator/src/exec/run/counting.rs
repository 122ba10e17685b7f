//! What an instruction does to memory, told to who counts. Leaves to others: what that costs (`counts`).

use crate::counts::{Access, Sectors};
use crate::exec::memory::target::space_of;
use crate::exec::run::block::Block;
use crate::exec::run::warp::Warp;
use crate::isa::op::{CopyAsync, Frag, Op, WmmaMove};
use crate::isa::space::{Addr, SHARED_WINDOW, Space, peer_of};
use crate::machine::regs::{FULL, LANES, each_lane, lane_word, w};

/// Where the lanes of an access go.
struct Places {
    at: [u64; LANES],
    /// Lanes that access shared memory of their own block; that of others is not counted.
    shared: u32,
    global: u32,
}

impl Places {
    fn of(warp: &Warp, active: u32, addr: &Addr) -> Places {
        let mut places = Places { at: Block::addresses(warp, addr), shared: 0, global: 0 };
        match addr.space {
            Space::Shared => places.shared = active,
            Space::Global => places.global = active,
            Space::Generic => each_lane(active, |l| match space_of(places.at[l]) {
                Space::Shared => {
                    places.shared |= 1 << l;
                    places.at[l] -= SHARED_WINDOW;
                }
                Space::Global => places.global |= 1 << l,
                _ => {}
            }),
            Space::Const | Space::Local | Space::Param => {}
        }
        each_lane(places.shared, |l| {
            places.shared &= !(u32::from(peer_of(places.at[l] as u32).is_some()) << l);
        });
        places
    }

    fn sectors(&self, bytes: u32) -> Sectors {
        Sectors::of(&self.at, self.global, |_| bytes)
    }
}

/// What an instruction that lanes `active` of a warp are about to execute does: it may overwrite its own address.
pub(crate) fn access(warp: &Warp, active: u32, op: &Op) -> Access {
    let mut access = Access::default();
    if active == 0 {
        return access;
    }
    match op {
        Op::Load(load) => {
            let (places, bytes) = (Places::of(warp, active, &load.addr), load.bytes * load.dst.len() as u32);
            access.shared(&places.at, places.shared, bytes);
            access.loads = places.sectors(bytes);
        }
        Op::Store(store) => {
            let (places, bytes) = (Places::of(warp, active, &store.addr), store.bytes * store.src.len() as u32);
            access.shared(&places.at, places.shared, bytes);
            access.stores = places.sectors(bytes);
        }
        Op::Atom(atom) => access.atomics = Places::of(warp, active, &atom.addr).sectors(atom.bytes),
        Op::CopyAsync(copy) => copied(&mut access, warp, active, copy),
        Op::Matrix(matrix) => {
            let at = Block::addresses(warp, &matrix.addr);
            (0..matrix.regs.len()).for_each(|i| access.pass(&at, 0xff << (8 * i) & active, 16));
        }
        Op::Wmma(wmma) => fragment(&mut access, warp, active, wmma),
        _ => {}
    }
    access
}

fn copied(access: &mut Access, warp: &Warp, active: u32, copy: &CopyAsync) {
    let sizes = copy.src_bytes.map_or([copy.bytes; LANES], |row| w(&warp.regs, row).map(|v| v.min(copy.bytes)));
    let reading = (0..LANES).fold(0, |lanes, l| lanes | u32::from(sizes[l] > 0) << l) & active;
    let from = Places::of(warp, reading, &copy.src);
    access.loads = Sectors::of(&from.at, from.global, |l| sizes[l]);
    let to = Places::of(warp, active, &copy.dst);
    access.copied(&to.at, to.shared, copy.bytes);
}

/// `wmma.load` and `wmma.store`. In shared memory a factor is four matrices of eight rows; of a sum each lane has its own
/// elements, two neighbours together where they lie side by side.
fn fragment(access: &mut Access, warp: &Warp, active: u32, op: &WmmaMove) {
    let places = Places::of(warp, active, &op.addr);
    let stride = u64::from(op.stride.map_or(16, |row| lane_word(&warp.regs, row, active)));
    let first = places.at[active.trailing_zeros() as usize & 31];
    let bytes: u64 = if op.frag == Frag::AccF32 { 4 } else { 2 };
    let place = |line: u64, position: u64| first.wrapping_add((line * stride + position) * bytes);
    if places.global != 0 {
        // By line: which lanes ask together differs, the bytes do not.
        let lines = std::array::from_fn(|l| place(l as u64, 0));
        let moved = Sectors::of(&lines, 0xffff, |_| 16 * bytes as u32);
        *(if op.store { &mut access.stores } else { &mut access.loads }) = moved;
    }
    if places.shared == 0 {
        return;
    }
    let lanes = |place: &dyn Fn(u64) -> u64| std::array::from_fn(|l| place(l as u64));
    for (line, position) in [(0, 0), (8, 0), (0, 8), (8, 8)] {
        if matches!(op.frag, Frag::A | Frag::B) {
            access.pass(&lanes(&|l| place(line + l % 8, position)), 0xff, 16);
        } else if op.column_major {
            for neighbour in [0, 1] {
                access.shared(&lanes(&|l| place(line + 2 * (l % 4) + neighbour, position + l / 4)), FULL, bytes as u32);
            }
        } else {
            access.shared(&lanes(&|l| place(line + l / 4, position + 2 * (l % 4))), FULL, 2 * bytes as u32);
        }
    }
}
