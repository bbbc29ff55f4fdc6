//! Credentials that were fetched, for all who share them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::Problem;

/// They are fetched again so long before they expire.
const EARLY: Duration = Duration::from_secs(5 * 60);

/// See the module.
pub struct CredentialCache<T>(Mutex<Option<Arc<Obtained<T>>>>);

/// The outcome of a search.
#[derive(Debug)]
pub struct Obtained<T> {
    /// None: requests are sent as nobody.
    pub keys: Option<T>,
    /// When they end.
    pub expires: Option<SystemTime>,
    /// A clause for errors that says what to do: where they are from, or where none were.
    pub searched: String,
    /// What must not be shown.
    pub secrets: Vec<String>,
}

impl<T> Default for CredentialCache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> CredentialCache<T> {
    /// What `search` found, the first time and when that is about to expire.
    pub fn get(&self, search: impl FnOnce() -> Result<Obtained<T>, Problem>) -> Result<Arc<Obtained<T>>, Problem> {
        // One thread searches, the others wait for it.
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cached.as_ref().filter(|found| !found.ends_soon()) {
            return Ok(found.clone());
        }
        let found = Arc::new(search()?);
        *cached = Some(found.clone());
        Ok(found)
    }

    /// What `is_refused` is not used any more: the next one who asks searches anew.
    pub fn refused(&self, is_refused: impl FnOnce(&T) -> bool) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().and_then(|found| found.keys.as_ref()).is_some_and(is_refused) {
            *cached = None;
        }
    }

    /// `found` was refused as expired: the next one who asks searches anew. False if there was nothing to refuse.
    pub fn expired(&self, found: &Arc<Obtained<T>>) -> bool {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().is_some_and(|cached| Arc::ptr_eq(cached, found)) {
            *cached = None;
        }
        found.keys.is_some()
    }
}

impl<T> Obtained<T> {
    fn ends_soon(&self) -> bool {
        let soon = SystemTime::now().checked_add(EARLY);
        self.expires.is_some_and(|expires| soon.is_none_or(|soon| expires < soon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_is_searched_again() {
        let cache = CredentialCache::default();
        let found = |number: u32, seconds: Option<u64>| {
            let expires = seconds.map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
            Ok(Obtained { keys: Some(number), expires, searched: String::new(), secrets: Vec::new() })
        };
        let get = |number, seconds| cache.get(|| found(number, seconds)).unwrap();
        assert_eq!(get(1, Some(0)).keys, Some(1));
        assert_eq!(get(2, Some(60)).keys, Some(2), "it had expired");
        assert_eq!(get(3, Some(3600)).keys, Some(3), "it was about to");
        let third = get(4, None);
        assert_eq!(third.keys, Some(3));
        assert!(cache.expired(&third));
        assert_eq!(get(5, None).keys, Some(5));
        assert!(cache.expired(&third), "another thread has searched meanwhile");
        assert_eq!(get(6, None).keys, Some(5));
        cache.refused(|number| *number == 4);
        assert_eq!(get(7, None).keys, Some(5), "another one was refused");
        cache.refused(|number| *number == 5);
        assert_eq!(get(8, None).keys, Some(8));
    }
}
