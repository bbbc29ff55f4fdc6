//! Credentials that were fetched, for all who share them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::Problem;

/// They are fetched again so long before they expire.
const EARLY: Duration = Duration::from_secs(5 * 60);

/// So long it is not asked again after nothing was found: a metadata server may answer late when a machine or pod starts, and where
/// there is none each request would wait for it.
const NOTHING: Duration = Duration::from_secs(15);

/// See the module.
pub struct CredentialCache<T>(Mutex<Option<Cached<T>>>);

struct Cached<T> {
    found: Arc<Obtained<T>>,
    since: SystemTime,
}

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
    /// What `search` found, the first time, when that is about to expire, and a while after it found nothing.
    pub fn get(&self, search: impl FnOnce() -> Result<Obtained<T>, Problem>) -> Result<Arc<Obtained<T>>, Problem> {
        self.get_at(SystemTime::now, search)
    }

    fn get_at(
        &self,
        now: impl Fn() -> SystemTime,
        search: impl FnOnce() -> Result<Obtained<T>, Problem>,
    ) -> Result<Arc<Obtained<T>>, Problem> {
        // One thread searches, the others wait for it.
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cached.as_ref().filter(|cached| cached.is_good(now())) {
            return Ok(cached.found.clone());
        }
        let found = Arc::new(search()?);
        *cached = Some(Cached { found: found.clone(), since: now() });
        Ok(found)
    }

    /// What `is_refused` is not used any more, nor that there is nothing: the next one who asks searches anew.
    pub fn refused(&self, is_refused: impl FnOnce(&T) -> bool) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().is_some_and(|cached| cached.found.keys.as_ref().is_none_or(is_refused)) {
            *cached = None;
        }
    }

    /// `found` was refused as expired: the next one who asks searches anew. False if there was nothing to refuse.
    pub fn expired(&self, found: &Arc<Obtained<T>>) -> bool {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().is_some_and(|cached| Arc::ptr_eq(&cached.found, found)) {
            *cached = None;
        }
        found.keys.is_some()
    }
}

impl<T> Cached<T> {
    fn is_good(&self, now: SystemTime) -> bool {
        match (&self.found.keys, self.found.expires) {
            (None, _) => now.duration_since(self.since).is_ok_and(|age| age < NOTHING),
            (Some(_), None) => true,
            (Some(_), Some(expires)) => now.checked_add(EARLY).is_some_and(|soon| soon <= expires),
        }
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

    #[test]
    fn that_there_is_nothing_is_not_kept_for_long() {
        let start = SystemTime::now();
        for (seconds, is_refused, expected) in
            [(0, false, None), (14, false, None), (16, false, Some(1)), (0, true, Some(1))]
        {
            let cache = CredentialCache::default();
            let get = |keys: Option<u32>, seconds| {
                let found = Obtained { keys, expires: None, searched: String::new(), secrets: Vec::new() };
                cache.get_at(|| start + Duration::from_secs(seconds), || Ok(found)).unwrap().keys
            };
            assert_eq!(get(None, 0), None);
            if is_refused {
                cache.refused(|_| false);
            }
            assert_eq!(get(Some(1), seconds), expected, "{seconds} {is_refused}");
        }
    }
}
