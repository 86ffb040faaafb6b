//! Requests that may be sent once, such as those with an assertion: made ahead, so that making them is not measured.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Makes a request that no other is equal to.
type Make = Box<dyn Fn() -> io::Result<Vec<u8>> + Send + Sync>;

/// What has been made, and how more is.
pub struct Stock {
    make: Make,
    made: Mutex<Vec<Vec<u8>>>,
    late: AtomicU64,
}

impl Stock {
    /// An empty one.
    pub fn new(make: impl Fn() -> io::Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), made: Mutex::default(), late: AtomicU64::new(0) }
    }

    /// Throws away what is left, since it ages, and makes `count` anew.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn renew(&self, count: usize) -> io::Result<()> {
        let fresh = (0..count).map(|_| (self.make)()).collect::<io::Result<Vec<_>>>()?;
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// One that nobody has had; made on the spot when none is left.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn take(&self) -> io::Result<Vec<u8>> {
        let ready = self.made.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(ready) = ready {
            return Ok(ready);
        }
        self.late.fetch_add(1, Ordering::Relaxed);
        (self.make)()
    }

    /// How many were made on the spot.
    pub fn made_late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_twice_and_what_was_not_made_ahead_is_made_late() {
        let next = AtomicU64::new(0);
        let stock = Stock::new(move || Ok(next.fetch_add(1, Ordering::Relaxed).to_string().into_bytes()));
        stock.renew(3).unwrap();
        stock.renew(2).unwrap();
        let mut taken: Vec<Vec<u8>> = (0..4).map(|_| stock.take().unwrap()).collect();
        taken.sort();
        assert_eq!(taken, ["3", "4", "5", "6"].map(|one| one.as_bytes().to_vec()));
        assert_eq!(stock.made_late(), 2);
    }
}
