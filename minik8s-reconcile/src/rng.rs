//! Chance, as a thing that can be replayed.

use std::fmt;
use std::sync::{Arc, Mutex};

/// A seeded source of random numbers, shared by its clones.
///
/// Parts of a program take a [`Rng::child`] each: one more draw in one part does not disturb another.
#[derive(Clone)]
pub struct Rng(Arc<Mutex<fastrand::Rng>>);

impl Rng {
    /// Seeded by the operating system.
    pub fn from_entropy() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    /// The same numbers for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// An independent source for the part called `name`.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        // FNV-1a: fixed for ever, unlike the hashers of the standard library.
        let salt = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Self::from_seed(self.with(|r| r.get_seed()) ^ salt)
    }

    /// A number below `bound`, or 0 if that is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.with(|r| r.u64(0..bound)) }
    }

    /// A number from 0 up to, not including, 1.
    pub fn fraction(&self) -> f64 {
        self.with(fastrand::Rng::f64)
    }

    /// A version 4 UUID as Kubernetes writes uids.
    pub fn uid(&self) -> String {
        let bytes = self.with(|r| r.u128(..)).to_le_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// `length` characters for the end of a generated name: no vowels, so no words.
    pub fn suffix(&self, length: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        self.with(|r| (0..length).map(|_| char::from(ALPHABET[r.usize(..ALPHABET.len())])).collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        f(&mut self.0.lock().expect("no draw panics"))
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng")
    }
}
