//! Room for a run's status: what etcd takes of one object, and what a status takes of that at most.
//!
//! A run whose status cannot be stored would be executed without a record. So a run too large to leave that room is
//! refused before anything starts, and no status outgrows it.

use crate::{
    api::{AgentRun, AgentRunStatus, Resource},
    kept::stored_bytes,
    status::cut,
};

/// Largest request that etcd takes unless it is told otherwise, in bytes: the object as JSON, and a little around it.
pub const MAX_OBJECT_BYTES: usize = 1536 * 1024;
/// What of it a run leaves free, in bytes: the largest status, who wrote which field, and what is around the object.
pub const STATUS_ROOM_BYTES: usize = 128 * 1024;
/// Largest status, in bytes as the API server stores it.
const MAX_STATUS_BYTES: usize = 96 * 1024;

/// Why a run of this size is never started, when `most` is what one object may take.
pub(super) fn fault(run: &Resource<AgentRun>, most: usize) -> Option<String> {
    let Resource { metadata, spec, status: _ } = run;
    let of_spec = metadata.left_out.as_ref().map_or_else(|| stored_bytes(spec), |left_out| left_out.bytes);
    let bytes = stored_bytes(metadata).saturating_add(of_spec);
    let limit = most.saturating_sub(STATUS_ROOM_BYTES);
    (bytes > limit).then(|| {
        format!(
            "spec: the run takes {bytes} bytes; more than {limit} leave no room for its status, since etcd takes objects \
             of {most} bytes: put large texts where the provider fetches them from"
        )
    })
}

/// Why no cluster whose etcd has the usual bound would start this run: it is too large to leave room for its status.
pub fn no_room(run: &Resource<AgentRun>) -> Option<String> {
    fault(run, MAX_OBJECT_BYTES)
}

/// Shortens the longest texts of a status that would outgrow its room: first they are cut to 512 bytes each, then to
/// less. What happened, when and why is kept in any case.
pub(super) fn fit(status: &mut AgentRunStatus) {
    for longest in [512, 128, 32] {
        if stored_bytes(status) <= MAX_STATUS_BYTES {
            return;
        }
        let attempts = status.attempts.iter_mut().filter_map(|attempt| attempt.message.as_mut());
        let blocked = status.blocked_by.iter_mut().flat_map(|entry| [&mut entry.message, &mut entry.unblocked_by]);
        let conditions = status.conditions.iter_mut().map(|condition| &mut condition.message);
        let runner = status.runner.as_mut().and_then(|runner| runner.error.as_mut());
        for text in attempts.chain(blocked).chain(conditions).chain(runner).chain(status.message.as_mut()) {
            *text = cut(text, longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::{
        agent_run::{Attempt, BlockedBy, MAX_ATTEMPTS_KEPT, OutputStatus, Phase, RunnerStatus, Stopping, VcsStatus},
        common::{Condition, ConditionStatus, Usage},
    };

    /// A status with everything in it, each text as long as its bound.
    fn largest(character: char) -> AgentRunStatus {
        let text = |bytes: usize| character.to_string().repeat(bytes / character.len_utf8());
        // Reasons are words of ours, objects are named by their kind and a DNS name.
        let word = |bytes: usize| "a".repeat(bytes);
        let at = Timestamp::constant(1_800_000_000, 0);
        let attempt = |number| Attempt {
            number,
            phase: Some(Phase::Cancelled),
            reason: Some(word(64)),
            message: Some(text(1024)),
            exit_code: Some(i32::MIN),
            signal: Some(64),
            submitted_at: Some(at),
            started_at: Some(at),
            finished_at: Some(at),
            usage: Some(Usage::default()),
            stopping: Some(Stopping { reason: word(64), at }),
        };
        let blocked = |_| BlockedBy {
            reason: word(64),
            object: Some(word(300)),
            message: text(1024),
            since: at,
            unblocked_by: text(512),
        };
        let condition = |n: u8| Condition {
            kind: format!("Condition{n}"),
            status: ConditionStatus::Unknown,
            reason: word(64),
            message: text(4096),
            last_transition_time: at,
            observed_generation: Some(i64::MAX),
        };
        AgentRunStatus {
            phase: Some(Phase::Succeeded),
            reason: Some(word(64)),
            message: Some(text(4096)),
            attempts: (1..).map(attempt).take(MAX_ATTEMPTS_KEPT).collect(),
            blocked_by: (0..super::super::record::MAX_BLOCKERS).map(blocked).collect(),
            conditions: (0..10).map(condition).collect(),
            // All of a report together fits into a termination message of 4 KiB.
            outputs: vec![OutputStatus { name: word(63), path: text(1024), size_bytes: i64::MAX, checksum: word(71) }],
            vcs: Some(VcsStatus { repository: Some(text(2048)), ..VcsStatus::default() }),
            runner: Some(RunnerStatus { error: Some(text(1024)), ..RunnerStatus::default() }),
            ..AgentRunStatus::default()
        }
    }

    #[test]
    fn the_largest_status_fits_into_its_room() {
        for character in ['a', '"', '<', '\u{1}', '\u{2028}', '…'] {
            let mut status = largest(character);
            fit(&mut status);
            assert!(stored_bytes(&status) <= MAX_STATUS_BYTES, "{character:?}: {}", stored_bytes(&status));
            let once = status.clone();
            fit(&mut status);
            assert_eq!(status, once, "what fits is left alone");
        }
        let mut ordinary = largest('a');
        ordinary.blocked_by.clear();
        ordinary.conditions.truncate(1);
        let before = ordinary.clone();
        fit(&mut ordinary);
        assert_eq!(ordinary, before);
    }

    #[test]
    fn a_run_is_too_large_from_the_first_byte_that_its_status_may_need() {
        let run = |bytes: usize| -> Resource<AgentRun> {
            let payloads = json!({"a": "x".repeat(bytes)});
            let whole = json!({"metadata": {"name": "r"}, "spec": {"agentRef": {"name": "a"}, "payloads": payloads}});
            serde_json::from_value(whole).unwrap()
        };
        let empty = stored_bytes(&run(0).metadata) + stored_bytes(&run(0).spec);
        let limit = MAX_OBJECT_BYTES - STATUS_ROOM_BYTES;
        assert_eq!(fault(&run(limit - empty), MAX_OBJECT_BYTES), None);
        let text = fault(&run(limit - empty + 1), MAX_OBJECT_BYTES).unwrap();
        assert!(text.contains("1441793 bytes") && text.contains("1441792") && text.contains("1572864"), "{text}");
    }

    proptest! {
        /// Against an encoder that escapes character by character, as the API server's does.
        #[test]
        fn the_length_is_that_of_the_api_servers_json(text in "[a<>&\"\\\\\u{1}\u{e9}\u{2028}\u{2029}\u{2027}\n]{0,40}") {
            let escaped = |character: char| match character {
                '"' | '\\' | '\n' => 2,
                '<' | '>' | '&' | '\u{1}' | '\u{2028}' | '\u{2029}' => 6,
                other => other.len_utf8(),
            };
            prop_assert_eq!(stored_bytes(&text), text.chars().map(escaped).sum::<usize>() + 2);
        }
    }
}
