//! Where things lie in a sitting: memory of the device that is taken before modules and buffers, and the order in which
//! modules are loaded. Leaves to others: loading and placing.

use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use stats::{shuffled, uniform_below};

use crate::cuda::Buffer;

/// Bytes of a page of device memory.
const PAGE: usize = 2 << 20;
/// The longest stretch that a placement takes.
const SPAN: usize = 32 * PAGE;

/// What a placement is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Drawn {
    /// Bytes that are taken.
    stretches: Vec<usize>,
    order: Vec<usize>,
}

impl Drawn {
    /// Stretches of less than a page shift what is placed within one, larger ones have others used.
    fn of(rng: &mut ChaCha8Rng, modules: usize) -> Drawn {
        let stretches = [PAGE, SPAN, PAGE, SPAN].map(|most| 1 + uniform_below(rng, most)).to_vec();
        Drawn { stretches, order: shuffled(rng, modules) }
    }
}

/// A placement that is taken as long as this lives.
pub struct Placement {
    _taken: Vec<Buffer>,
    /// The order of modules.
    pub order: Vec<usize>,
    /// Draws what else differs between sittings.
    pub rng: ChaCha8Rng,
}

impl Placement {
    /// That of the `number`th sitting of a job; without a seed nothing is taken, and modules keep their order.
    pub fn take(seed: u64, number: u64, modules: usize) -> Result<Placement> {
        let mut rng = rng_of(seed, number);
        if seed == 0 {
            return Ok(Placement { _taken: Vec::new(), order: (0..modules).collect(), rng });
        }
        let Drawn { stretches, order } = Drawn::of(&mut rng, modules);
        let taken = stretches.into_iter().map(|bytes| Buffer::filled(bytes, 0)).collect::<Result<_>>()?;
        Ok(Placement { _taken: taken, order, rng })
    }
}

/// Sittings of one seed draw from streams of their own.
fn rng_of(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sitting_of_a_seed_lies_elsewhere_and_in_the_same_place_when_it_is_drawn_again() {
        let drawn = |seed, number| Drawn::of(&mut rng_of(seed, number), 8);
        let all: Vec<Drawn> = (0..50).map(|number| drawn(3, number)).collect();
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one), "sitting {i}");
            assert_eq!(*one, drawn(3, i as u64));
            let mut order = one.order.clone();
            order.sort_unstable();
            assert_eq!(order, (0..8).collect::<Vec<_>>());
        }
        assert_ne!(drawn(3, 0), drawn(4, 0));
    }
}
