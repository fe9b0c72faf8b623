//! The set of idle processes, with fakes and on a paused clock.

use super::super::Warm;
use super::super::demand::tests::launch;
use super::*;

/// Its id, its memory, and whether it has ended.
#[derive(Debug, PartialEq)]
struct Fake(i32, u64, bool);

impl Idles for Fake {
    fn id(&self) -> i32 {
        self.0
    }

    fn is_sound(&self) -> bool {
        !self.2
    }

    fn resident(&self) -> Option<u64> {
        Some(self.1)
    }

    fn drop_output(&mut self) -> bool {
        true
    }
}

const POLICY: PoolPolicy = PoolPolicy {
    revision: 0,
    warm: Warm::Fixed(2),
    max_age: Duration::from_secs(60),
    continue_for: Duration::from_secs(10),
    idle_memory: 10,
};

fn policy(policy: PoolPolicy) -> BTreeMap<String, PoolPolicy> {
    BTreeMap::from([("b".to_owned(), policy)])
}

/// A set with memory for ten processes, and one launch that the configuration names.
fn set() -> (IdleSet<Fake>, Arc<Launch>) {
    let (mut set, launch) = (IdleSet::new(100), launch("p", true));
    let evicted = set.configure(std::slice::from_ref(&launch), policy(POLICY), 100);
    none_of(evicted);
    (set, launch)
}

fn warm(set: &mut IdleSet<Fake>, launch: &Arc<Launch>, id: i32) {
    none_of(set.add(launch, Fake(id, 10, false)));
}

/// A conversation of one turn. The memo tells which.
fn parked(key: u8) -> Held {
    Held {
        owner: [0; 32],
        turns: vec![([key; 32], None)],
        awaited: Vec::new(),
        memo: key.to_string(),
        served: 1,
    }
}

fn sought(key: u8) -> Sought {
    Sought {
        owner: [0; 32],
        turns: vec![[key; 32]],
        results: Vec::new(),
    }
}

fn ids(evicted: Evicted<Fake>) -> Vec<i32> {
    evicted.0.iter().map(Fake::id).collect()
}

fn none_of(evicted: Evicted<Fake>) {
    assert_eq!(ids(evicted), Vec::<i32>::new());
}

/// The id of the process that is taken, and the memo that it was parked with.
fn take(set: &mut IdleSet<Fake>, launch: &Arc<Launch>, key: u8) -> Option<(i32, String)> {
    let (taken, evicted) = set.take(launch, Some(&sought(key)));
    evicted.end();
    taken.map(|(process, taken)| match taken {
        Taken::Warm => (process.0, String::new()),
        Taken::Parked(held, _) => (process.0, held.memo),
    })
}

#[tokio::test(start_paused = true)]
async fn a_conversation_goes_on_in_its_process_and_others_take_the_oldest_warm_one() {
    let (mut set, launch) = set();
    warm(&mut set, &launch, 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    warm(&mut set, &launch, 2);
    none_of(set.park(launch.clone(), Fake(3, 10, false), parked(7)));
    assert_eq!(set.count("b"), (2, 1));
    assert_eq!(take(&mut set, &launch, 7), Some((3, "7".into())));
    assert_eq!(take(&mut set, &launch, 7), Some((1, String::new())));
    assert_eq!(take(&mut set, &launch, 8), Some((2, String::new())));
    assert_eq!(take(&mut set, &launch, 8), None);
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_the_process_of_another_conversation_or_launch() {
    let (mut set, launch) = set();
    set.park(launch.clone(), Fake(1, 10, false), parked(7))
        .end();
    assert_eq!(take(&mut set, &launch, 8), None);
    assert_eq!(
        take(&mut set, &super::super::demand::tests::launch("q", true), 7),
        None
    );
    assert!(set.parks(&launch));
}

#[tokio::test(start_paused = true)]
async fn a_process_is_taken_back_to_what_it_shares_with_a_request() {
    let (mut set, launch) = set();
    let holding = |turns: &[u8]| Held {
        turns: turns
            .iter()
            .map(|key| ([*key; 32], Some(key.to_string())))
            .collect(),
        ..parked(0)
    };
    let seeking = |turns: &[u8]| Sought {
        turns: turns.iter().map(|key| [*key; 32]).collect(),
        ..sought(0)
    };
    let take = |set: &mut IdleSet<Fake>, turns: &[u8]| {
        let (taken, evicted) = set.take(&launch, Some(&seeking(turns)));
        evicted.end();
        taken.map(|(process, taken)| match taken {
            Taken::Warm => (process.0, None),
            Taken::Parked(_, fit) => (process.0, Some((fit.kept, fit.rewinds))),
        })
    };
    let park = |set: &mut IdleSet<Fake>, id, turns: &[u8]| {
        none_of(set.park(launch.clone(), Fake(id, 10, false), holding(turns)));
    };
    park(&mut set, 1, &[1, 2, 3]);
    park(&mut set, 2, &[1, 2]);
    park(&mut set, 3, &[1]);
    // The one that keeps most, then the one that loses least, then the one that was unused the longest.
    assert_eq!(take(&mut set, &[1, 2]), Some((2, Some((2, 0)))));
    assert_eq!(take(&mut set, &[1, 2, 4]), Some((1, Some((2, 1)))));
    park(&mut set, 1, &[1, 2, 3]);
    // A conversation of several turns is spared while another process is there.
    warm(&mut set, &launch, 4);
    assert_eq!(take(&mut set, &[7]), Some((3, Some((0, 1)))));
    assert_eq!(take(&mut set, &[7]), Some((4, None)));
    assert_eq!(take(&mut set, &[7]), Some((1, Some((0, 3)))));
    // What a process has refused, others like it are not asked for.
    park(&mut set, 5, &[1, 2]);
    set.record_refusal(&launch, Refusal::First);
    assert_eq!(take(&mut set, &[7]), None);
    assert_eq!(take(&mut set, &[1]), Some((5, Some((1, 1)))));
    park(&mut set, 6, &[1, 2]);
    set.record_refusal(&launch, Refusal::Later);
    set.record_refusal(&launch, Refusal::Later);
    assert_eq!(take(&mut set, &[1]), None);
    assert_eq!(take(&mut set, &[1, 2]), Some((6, Some((2, 0)))));
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_was_seen_is_met_the_next_time() {
    let (mut set, launch) = set();
    let auto = PoolPolicy {
        warm: Warm::Auto,
        ..POLICY
    };
    none_of(set.configure(std::slice::from_ref(&launch), policy(auto), 100));
    assert_eq!(set.lacking().len(), 1);
    warm(&mut set, &launch, 1);
    assert_eq!(set.lacking().len(), 0);
    for _ in 0..4 {
        set.demand().begins(&launch);
    }
    for _ in 0..4 {
        set.demand().ends(&launch);
    }
    none_of(set.park(launch.clone(), Fake(2, 10, false), parked(1)));
    for id in 3..5 {
        assert_eq!(set.lacking().len(), 1);
        warm(&mut set, &launch, id);
    }
    assert_eq!(set.lacking().len(), 0, "three are warm, and one is parked");
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(set.demand().most(&launch), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_is_retired_in_time() {
    let (mut set, launch) = set();
    let spent = Held {
        served: REQUESTS_MAX,
        ..parked(1)
    };
    assert_eq!(
        ids(set.park(launch.clone(), Fake(1, 10, false), spent)),
        [1]
    );
    let large = POLICY.idle_memory * GROWTH_MAX + 1;
    assert_eq!(
        ids(set.park(launch.clone(), Fake(2, large, false), parked(1))),
        [2]
    );
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_or_is_too_old_is_passed_over() {
    let (mut set, launch) = set();
    set.add(&launch, Fake(1, 10, true)).end();
    warm(&mut set, &launch, 2);
    assert_eq!(take(&mut set, &launch, 0), Some((2, String::new())));
    // A warm process that ended: the next one is started after a pause.
    assert_eq!(set.lacking().len(), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(set.lacking(), std::slice::from_ref(&launch));
    set.park(launch.clone(), Fake(3, 10, false), parked(7))
        .end();
    tokio::time::advance(POLICY.continue_for).await;
    assert_eq!(take(&mut set, &launch, 7), None);
}

#[tokio::test(start_paused = true)]
async fn a_parked_process_has_its_time_and_a_warm_one_has_more() {
    let (mut set, launch) = set();
    warm(&mut set, &launch, 1);
    set.park(launch.clone(), Fake(2, 10, false), parked(7))
        .end();
    tokio::time::advance(POLICY.continue_for).await;
    assert_eq!(ids(set.sweep()), [2]);
    tokio::time::advance(POLICY.max_age).await;
    assert_eq!(ids(set.sweep()), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_gives_way_and_warm_ones_stay() {
    let (mut set, launch) = set();
    warm(&mut set, &launch, 1);
    for id in 2..=10 {
        tokio::time::advance(Duration::from_millis(1)).await;
        set.park(launch.clone(), Fake(id, 10, false), parked(7))
            .end();
    }
    // The memory is full.
    assert_eq!(
        ids(set.park(launch.clone(), Fake(11, 20, false), parked(8))),
        [2, 3]
    );
    assert_eq!(
        ids(set.park(launch.clone(), Fake(12, 95, false), parked(8))),
        [12]
    );
    assert_eq!(ids(set.evict()), [4]);
    assert_eq!(set.count("b"), (1, 7));
    for _ in 0..7 {
        set.evict().end();
    }
    assert_eq!(ids(set.evict()), [1]);
    none_of(set.evict());
}

#[tokio::test(start_paused = true)]
async fn memory_that_grew_is_given_back() {
    let (mut set, launch) = set();
    warm(&mut set, &launch, 1);
    set.park(launch.clone(), Fake(2, 10, false), parked(7))
        .end();
    set.processes[1].process.1 = 95;
    none_of(set.sweep());
    tokio::time::advance(POLL_INTERVAL * 2).await;
    assert_eq!(ids(set.sweep()), [2]);
}

#[tokio::test(start_paused = true)]
async fn another_configuration_ends_what_was_started_otherwise() {
    let (mut set, launch) = set();
    warm(&mut set, &launch, 1);
    set.park(launch.clone(), Fake(2, 10, false), parked(7))
        .end();
    let shorter = PoolPolicy {
        continue_for: Duration::from_secs(1),
        ..POLICY
    };
    let same = std::slice::from_ref(&launch);
    none_of(set.configure(same, policy(shorter), 100));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(ids(set.sweep()), [2]);
    let other = PoolPolicy {
        revision: 1,
        ..POLICY
    };
    assert_eq!(ids(set.configure(&[], policy(other), 100)), [1]);
    // A process of a request from before the change.
    assert_eq!(
        ids(set.park(launch.clone(), Fake(3, 10, false), parked(7))),
        [3]
    );
    assert_eq!(ids(set.add(&launch, Fake(4, 10, false))), [4]);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_backend_and_a_closed_set_have_no_idle_processes() {
    let (mut set, launch) = set();
    warm(&mut set, &launch, 1);
    assert_eq!(ids(set.suspend("b")), [1]);
    assert_eq!(ids(set.add(&launch, Fake(2, 10, false))), [2]);
    assert_eq!(set.lacking().len(), 0);
    assert!(set.demand().resume("b"));
    assert_eq!(set.lacking().len(), 1);
    warm(&mut set, &launch, 3);
    assert_eq!(ids(set.close()), [3]);
    assert_eq!(ids(set.add(&launch, Fake(4, 10, false))), [4]);
    assert_eq!(
        ids(set.park(launch.clone(), Fake(5, 10, false), parked(7))),
        [5]
    );
    assert_eq!(set.lacking().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn room_is_made_by_what_was_used_less_recently() {
    let (mut set, launch) = set();
    let roomy = PoolPolicy {
        idle_memory: 40,
        ..POLICY
    };
    none_of(set.configure(std::slice::from_ref(&launch), policy(roomy), 100));
    let other = super::super::demand::tests::launch("q", true);
    set.park(launch.clone(), Fake(1, 95, false), parked(7))
        .end();
    tokio::time::advance(Duration::from_secs(1)).await;
    // The launch was used before the process was parked: it has no right to the memory.
    assert!(set.make_room(&launch).is_none());
    set.demand().used(&other);
    assert_eq!(set.make_room(&other).map(ids), Some(vec![1]));
    assert_eq!(set.make_room(&other).map(ids), Some(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_process_is_lent_and_comes_back_as_it_was() {
    let (mut set, launch) = set();
    warm(&mut set, &launch, 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    none_of(set.park(launch.clone(), Fake(2, 10, false), parked(7)));
    let (Some(lent), unfit) = set.lend("b") else {
        panic!("none was lent");
    };
    none_of(unfit);
    assert_eq!(lent.0.process.0, 2, "a parked one before a warm one");
    assert_eq!(take(&mut set, &launch, 7), Some((1, String::new())));
    none_of(set.give_back(lent));
    assert_eq!(take(&mut set, &launch, 7), Some((2, "7".into())));
}

#[tokio::test(start_paused = true)]
async fn a_warm_process_that_is_lent_is_not_replaced() {
    let (mut set, launch) = set();
    warm(&mut set, &launch, 1);
    warm(&mut set, &launch, 2);
    assert_eq!(set.lacking().len(), 0);
    let (lent, unfit) = set.lend("b");
    none_of(unfit);
    assert_eq!(set.lacking().len(), 0);
    // It is of no use any more.
    assert_eq!(ids(set.give_up(lent.unwrap())), [1]);
    assert_eq!(set.lacking().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_results_or_belongs_to_others_is_not_lent() {
    let (mut set, launch) = set();
    let mut waits = parked(7);
    waits.awaited.push("call".into());
    none_of(set.park(launch.clone(), Fake(1, 10, false), waits));
    let (lent, unfit) = set.lend("b");
    assert!(lent.is_none());
    none_of(unfit);
    warm(&mut set, &launch, 2);
    assert!(set.lend("other").0.is_none());
    let (lent, _) = set.lend("b");
    // Meanwhile, the configuration starts processes differently.
    let changed = PoolPolicy {
        revision: 1,
        ..POLICY
    };
    set.configure(&[], policy(changed), 100).end();
    assert_eq!(ids(set.give_back(lent.unwrap())), [2]);
}
