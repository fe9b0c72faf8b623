//! What the system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most descriptors that are asked for: connections and processes at their most take some 5,000.
const DESCRIPTORS_WANTED: u64 = 65_536;

/// Raises the number of descriptors to what may be had: many systems begin with 1,024, which some hundred
/// connections take. If that is refused, there are fewer places for connections.
pub fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum
        .unwrap_or(DESCRIPTORS_WANTED)
        .min(DESCRIPTORS_WANTED);
    if current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum,
        };
        let _ = setrlimit(Resource::Nofile, raised);
    }
}
