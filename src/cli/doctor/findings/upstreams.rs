//! Whether there is anybody to ask.

use super::super::Examined;
use super::{Finding, list, ok, problem, warning};

pub(super) fn upstreams(seen: &Examined) -> Vec<Finding> {
    let down: Vec<&String> = seen.upstreams.iter().filter(|(_, up)| !**up).map(|(to, _)| to).collect();
    let finding = match (down.len(), seen.upstreams.len()) {
        (_, 0) => return Vec::new(),
        (0, _) => ok(format!("none of the agent's upstreams is down: {}", list(seen.upstreams.keys()))),
        (down, all) if down == all => problem(
            format!("every upstream of the agent is down: {}", list(seen.upstreams.keys())),
            "clients get what is in the cache, expired answers where serve_stale is on, and errors; the agent's log \
             says what its checks met: see whether the way there is open",
        ),
        (_, all) => warning(
            format!("of {all} upstreams of the agent {} down: {}", are(down.len()), list(&down)),
            "a forward with another upstream uses that one; the agent's log says what its checks met",
        ),
    };
    vec![finding]
}

fn are(count: usize) -> String {
    if count == 1 { "1 is".to_owned() } else { format!("{count} are") }
}
