//! Who runs the cluster meanwhile: mappings change, pods leave in order and without a word, and come again.

use super::{
    ABRUPT, BOTH, CHANGING, FLEETING, OWN, Soak,
    job::{Job, Kind},
};
use snproxy_tests::{Host, Pod, eventually};
use std::{fmt::Write, sync::atomic::Ordering::Relaxed, thread::sleep, time::Duration};

const SOON: Duration = Duration::from_secs(30);
/// Between two changes.
const BETWEEN: Duration = Duration::from_millis(700);

/// Pods that come and go, one of each on every host.
pub(super) struct Passing {
    pub(super) fleeting: Pod,
    pub(super) abrupt: Pod,
}

impl Soak<'_> {
    /// Goes on until the end.
    pub(super) fn operate(&self, passing: &[Passing]) {
        let mut random = fastrand::Rng::with_seed(self.seed ^ 0x0be7);
        let mut number = 0;
        while self.goes_on() {
            for (at, passing) in passing.iter().enumerate() {
                let host = &self.hosts[at];
                self.retire(at, &passing.fleeting);
                // A port that was not there before, in force at once for who waits for it.
                let port = CHANGING + number % 100;
                number += 1;
                host.reloaded_after(|host| host.mappings(&mappings(at, true, Some(port))));
                self.reloads.fetch_add(1, Relaxed);
                let job = Job::drawn(Kind::Churn, self.next_seed(), &mut random);
                self.carry(job, at, port);
                sleep(BETWEEN);
                self.stop_without_a_word(host, &passing.abrupt);
                sleep(BETWEEN);
            }
        }
    }

    /// Takes a pod out of the mappings, waits for its connections, stops it, starts it and maps it again.
    fn retire(&self, at: usize, pod: &Pod) {
        let host = &self.hosts[at];
        host.reloaded_after(|host| host.mappings(&mappings(at, false, None)));
        self.reloads.fetch_add(1, Relaxed);
        // The last one may be on its way to it.
        sleep(BETWEEN);
        eventually(SOON, "the pod is left alone", || pod.inside() == 0);
        pod.stop();
        sleep(BETWEEN);
        host.pod(30001, pod.clone());
        host.reloaded_after(|host| host.mappings(&mappings(at, true, None)));
        self.reloads.fetch_add(1, Relaxed);
    }

    /// Ends a pod that is mapped: what it serves is cut, and the next ones are served by its like.
    fn stop_without_a_word(&self, host: &Host, pod: &Pod) {
        self.stops.fetch_add(1, Relaxed);
        pod.stop();
        sleep(BETWEEN);
        host.pod(30002, pod.clone());
        self.stops.fetch_add(1, Relaxed);
    }
}

/// What a host maps, with or without its pod that comes and goes, and a port for a while.
pub(super) fn mappings(at: usize, fleeting: bool, port: Option<u16>) -> String {
    let own = OWN[at];
    let fleeting = fleeting.then_some((FLEETING, 30001));
    let passing = port.map(|port| (port, 30000));
    let lasting = [(BOTH, 30000), (own, 30000), (ABRUPT, 30002)];
    let mut text = String::new();
    for (cluster, pod) in lasting.into_iter().chain(fleeting).chain(passing) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{cluster}:{pod}:5000:false");
    }
    text
}
