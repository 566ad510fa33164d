//! Steps that wait for each other, wherever a kind has some.

use super::Faults;
use crate::graph::{self, GraphFault, Node};

/// Notes what keeps the steps of the list at `at` from having an order.
pub(super) fn order(at: &str, nodes: &[Node<'_>], faults: &mut Faults) {
    for fault in graph::order(nodes).err().into_iter().flatten() {
        let field = match &fault {
            GraphFault::Duplicate { node, .. } => format!("{at}[{node}].name"),
            GraphFault::Unknown { node, dependency, .. } => format!("{at}[{node}].dependsOn[{dependency}]"),
            GraphFault::Cycle { node, .. } => format!("{at}[{node}].dependsOn"),
        };
        faults.add(field, fault.to_string());
    }
}
