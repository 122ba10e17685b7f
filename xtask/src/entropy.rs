//! Numbers that nobody could know before: from the system's entropy. Leaves to others: what is drawn from them.

use anyhow::{Result, anyhow};

/// A seed that was not there when the kernels were written. Not larger than every format that it passes through can hold:
/// TOML's integers are signed.
pub fn seed() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("failed to draw a seed from the system's entropy: {e}"))?;
    Ok(u64::from_le_bytes(bytes) >> 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_differ_and_fit_a_signed_integer() {
        let (a, b) = (super::seed().unwrap(), super::seed().unwrap());
        assert!(a != b && i64::try_from(a).is_ok() && i64::try_from(b).is_ok());
    }
}
