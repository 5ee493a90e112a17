//! How the news of a run went out.

use serde::{Deserialize, Serialize};

/// What became of the news on one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelOutcome {
    /// `mail`, or the name of one of the channels in `notify`.
    pub channel: String,
    pub status: ChannelStatus,
    /// What went wrong, without any secret. After a mail was sent, who did not get it.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChannelStatus {
    Sent,
    /// It is kept, and sent by a later command.
    Waiting,
    /// It is not kept, or was given up.
    Lost,
}
