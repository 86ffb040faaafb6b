//! Requests that may be sent once only, such as those with an assertion: signed ahead, so that signing is not measured.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Makes a request that equals no other.
type Make = Box<dyn Fn() -> io::Result<Vec<u8>> + Send + Sync>;

/// A stock of requests, each for one use.
pub struct Stock {
    make: Make,
    made: Mutex<Vec<Vec<u8>>>,
    late: AtomicUsize,
}

impl Stock {
    /// An empty stock.
    pub fn new(make: impl Fn() -> io::Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), made: Mutex::default(), late: AtomicUsize::new(0) }
    }

    /// Replaces the requests that are left, since they age, by `count` fresh ones.
    pub fn renew(&self, count: usize) -> io::Result<()> {
        let fresh = (0..count).map(|_| (self.make)()).collect::<io::Result<Vec<_>>>()?;
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Takes a request; it is made on the spot when none is left.
    pub fn take(&self) -> io::Result<Vec<u8>> {
        let ready = self.made.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(ready) = ready {
            return Ok(ready);
        }
        self.late.fetch_add(1, Ordering::Relaxed);
        (self.make)()
    }

    /// The number of requests that were made on the spot.
    pub fn made_late(&self) -> usize {
        self.late.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_item_is_taken_twice_and_missing_items_are_made_on_demand() {
        let next = AtomicUsize::new(0);
        let stock = Stock::new(move || Ok(next.fetch_add(1, Ordering::Relaxed).to_string().into_bytes()));
        stock.renew(3).unwrap();
        stock.renew(2).unwrap();
        let mut taken: Vec<Vec<u8>> = (0..4).map(|_| stock.take().unwrap()).collect();
        taken.sort();
        assert_eq!(taken, ["3", "4", "5", "6"].map(|one| one.as_bytes().to_vec()));
        assert_eq!(stock.made_late(), 2);
    }
}
