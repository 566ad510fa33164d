//! Graphs of named steps: whether they can be walked, and in which order. Knows nothing of what a step does.

use std::collections::BTreeMap;

/// A step and the names of the steps that come before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'a> {
    /// Name, unique in the graph.
    pub name: &'a str,
    /// Names of the steps that come before it; naming one twice says nothing more.
    pub depends_on: &'a [String],
}

/// Why a graph cannot be walked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphFault {
    /// Two steps have one name.
    #[error("{name:?} is the name of another step too")]
    Duplicate {
        /// Index of the later one.
        node: usize,
        /// The name.
        name: String,
    },
    /// A step comes after one that is not there.
    #[error("no step is called {name:?}")]
    Unknown {
        /// Index of the step.
        node: usize,
        /// Index in its list.
        dependency: usize,
        /// The name that nothing has.
        name: String,
    },
    /// Steps wait for each other; the first is repeated at the end, and each one waits for the next.
    #[error("steps wait for each other: {}", path.join(" -> "))]
    Cycle {
        /// Index of the first step of the path.
        node: usize,
        /// The names.
        path: Vec<String>,
    },
}

/// The indices of `nodes` in an order in which each comes after those it depends on; what could be first keeps the
/// order of `nodes`.
///
/// # Errors
/// Every duplicate and every unknown name, or else one cycle.
pub fn order(nodes: &[Node<'_>]) -> Result<Vec<usize>, Vec<GraphFault>> {
    let before = edges(nodes)?;
    let mut open: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut after = vec![Vec::new(); nodes.len()];
    for (node, before) in before.iter().enumerate() {
        for &earlier in before {
            after[earlier].push(node);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..nodes.len()).filter(|&node| open[node] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(node) = ready.pop_first() {
        order.push(node);
        for &later in &after[node] {
            open[later] -= 1;
            if open[later] == 0 {
                ready.insert(later);
            }
        }
    }
    match (0..nodes.len()).find(|&node| open[node] > 0) {
        None => Ok(order),
        Some(stuck) => Err(vec![cycle(nodes, &before, &open, stuck)]),
    }
}

/// For each node the indices of those it depends on, each once.
fn edges(nodes: &[Node<'_>]) -> Result<Vec<Vec<usize>>, Vec<GraphFault>> {
    let mut faults = Vec::new();
    let mut known = BTreeMap::new();
    for (node, Node { name, .. }) in nodes.iter().enumerate() {
        if known.contains_key(name) {
            faults.push(GraphFault::Duplicate { node, name: (*name).to_owned() });
        } else {
            known.insert(*name, node);
        }
    }
    let mut edges = Vec::with_capacity(nodes.len());
    for (node, Node { depends_on, .. }) in nodes.iter().enumerate() {
        let mut before = Vec::with_capacity(depends_on.len());
        for (dependency, name) in depends_on.iter().enumerate() {
            match known.get(name.as_str()) {
                Some(&earlier) => before.push(earlier),
                None => faults.push(GraphFault::Unknown { node, dependency, name: name.clone() }),
            }
        }
        before.sort_unstable();
        before.dedup();
        edges.push(before);
    }
    if faults.is_empty() { Ok(edges) } else { Err(faults) }
}

/// A cycle that is met when going back from `stuck`: every stuck node depends on a stuck one, so the walk returns to a
/// node it has seen.
fn cycle(nodes: &[Node<'_>], before: &[Vec<usize>], open: &[usize], stuck: usize) -> GraphFault {
    let mut walk = Vec::new();
    let mut seen = vec![None; nodes.len()];
    let mut node = stuck;
    let start = loop {
        if let Some(start) = seen[node] {
            break start;
        }
        seen[node] = Some(walk.len());
        walk.push(node);
        match before[node].iter().find(|&&earlier| open[earlier] > 0) {
            Some(&earlier) => node = earlier,
            // Cannot be: a node whose dependencies are all done is not stuck.
            None => break walk.len() - 1,
        }
    };
    let ring = &walk[start..];
    let path = ring.iter().chain(ring.first()).map(|&node| nodes[node].name.to_owned()).collect();
    GraphFault::Cycle { node: ring.first().copied().unwrap_or(stuck), path }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn graph(steps: &[(&str, &[&str])]) -> Result<Vec<usize>, Vec<GraphFault>> {
        let lists: Vec<Vec<String>> =
            steps.iter().map(|(_, before)| before.iter().map(|&name| name.to_owned()).collect()).collect();
        let nodes: Vec<Node<'_>> =
            steps.iter().zip(&lists).map(|((name, _), depends_on)| Node { name, depends_on }).collect();
        order(&nodes)
    }

    #[test]
    fn a_diamond_is_walked_from_its_top() {
        let walked = graph(&[("end", &["a", "b"]), ("b", &["top"]), ("a", &["top", "top"]), ("top", &[])]);
        assert_eq!(walked, Ok(vec![3, 1, 2, 0]));
        assert_eq!(graph(&[]), Ok(Vec::new()));
    }

    #[test]
    fn each_fault_names_its_steps() {
        let said = |steps: &[(&str, &[&str])]| -> Vec<String> {
            graph(steps).unwrap_err().iter().map(ToString::to_string).collect()
        };
        assert_eq!(said(&[("a", &["a"])]), ["steps wait for each other: a -> a"]);
        assert_eq!(
            said(&[("root", &[]), ("tail", &["a"]), ("a", &["root", "c"]), ("b", &["a"]), ("c", &["b"])]),
            ["steps wait for each other: a -> c -> b -> a"]
        );
        assert_eq!(
            said(&[("a", &["x"]), ("a", &["y"])]),
            ["\"a\" is the name of another step too", "no step is called \"x\"", "no step is called \"y\""]
        );
    }

    /// Edges over nodes 0..12, any direction.
    fn any_edges() -> impl Strategy<Value = Vec<(usize, usize)>> {
        vec((0..12_usize, 0..12_usize), 0..24)
    }

    fn with_edges<T>(edges: &[(usize, usize)], then: impl FnOnce(&[Node<'_>]) -> T) -> T {
        let names: Vec<String> = (0..12).map(|node| format!("n{node}")).collect();
        let lists: Vec<Vec<String>> = (0..12)
            .map(|node| edges.iter().filter(|edge| edge.0 == node).map(|edge| names[edge.1].clone()).collect())
            .collect();
        let nodes: Vec<Node<'_>> =
            names.iter().zip(&lists).map(|(name, depends_on)| Node { name, depends_on }).collect();
        then(&nodes)
    }

    proptest! {
        #[test]
        fn an_order_respects_every_edge_and_a_cycle_is_one(edges in any_edges()) {
            match with_edges(&edges, order) {
                Ok(order) => {
                    let mut place = [usize::MAX; 12];
                    for (at, node) in order.iter().enumerate() {
                        place[*node] = at;
                    }
                    prop_assert!(place.iter().all(|at| *at < 12), "{order:?} leaves one out");
                    for (later, earlier) in edges {
                        prop_assert!(place[earlier] < place[later]);
                    }
                }
                Err(faults) => {
                    let [GraphFault::Cycle { path, .. }] = faults.as_slice() else {
                        return Err(TestCaseError::fail(format!("{faults:?}")));
                    };
                    prop_assert_eq!(path.first(), path.last());
                    prop_assert!(path.len() > 1);
                    for pair in path.windows(2) {
                        prop_assert!(edges.iter().any(|(later, earlier)| {
                            format!("n{later}") == pair[0] && format!("n{earlier}") == pair[1]
                        }), "{} does not depend on {}", pair[0], pair[1]);
                    }
                }
            }
        }

        #[test]
        fn edges_that_only_go_back_make_no_cycle(edges in any_edges()) {
            let back: Vec<(usize, usize)> =
                edges.into_iter().filter(|(a, b)| a != b).map(|(a, b)| (a.max(b), a.min(b))).collect();
            prop_assert!(with_edges(&back, order).is_ok());
        }
    }
}
