//! What reads bytes that others wrote, as functions that can be called with any bytes. For tests alone; no part of the
//! library's promises.

use agents_core::api::{agent_provider::UsageParser, common::Usage};

use super::usage::UsageReader;

/// The usage and the conversation in what a provider printed, given in pieces.
pub fn usage<'c>(parser: UsageParser, chunks: impl IntoIterator<Item = &'c [u8]>) -> (Option<Usage>, Option<String>) {
    let mut reader = UsageReader::new(parser);
    chunks.into_iter().for_each(|chunk| reader.push(chunk));
    let found = reader.finish();
    (found.usage, found.conversation)
}
