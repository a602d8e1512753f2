//! etcd's calls: for each request the path it goes to and the answer it gets.

use crate::stub::{
    AuthenticateRequest, AuthenticateResponse, CompactionRequest, CompactionResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, RangeRequest, RangeResponse, ResponseHeader,
    StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};

/// A request, and what is known of its call.
pub(crate) trait Rpc: prost::Message + Clone + 'static {
    /// What is answered.
    type Answer: Answer;
    /// Where it goes.
    const PATH: &'static str;
    /// Most bytes of an answer.
    const ANSWER_BYTES_MAX: usize = 4_194_304;
}

/// An answer.
pub(crate) trait Answer: prost::Message + Default + 'static {
    /// Cluster and revision, as the member that answered knew them.
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! rpc {
    ($request:ty, $answer:ty, $path:literal $(, ANSWER_BYTES_MAX = $max:expr)?) => {
        impl Rpc for $request {
            type Answer = $answer;
            const PATH: &'static str = $path;
            $(const ANSWER_BYTES_MAX: usize = $max;)?
        }

        impl Answer for $answer {
            fn header(&self) -> Option<&ResponseHeader> {
                self.header.as_ref()
            }
        }
    };
}

rpc!(
    RangeRequest,
    RangeResponse,
    "/etcdserverpb.KV/Range",
    ANSWER_BYTES_MAX = PAGE_ANSWER_BYTES_MAX
);
rpc!(TxnRequest, TxnResponse, "/etcdserverpb.KV/Txn", ANSWER_BYTES_MAX = BATCH_ANSWER_BYTES_MAX);
rpc!(CompactionRequest, CompactionResponse, "/etcdserverpb.KV/Compact");
rpc!(
    WatchRequest,
    WatchResponse,
    "/etcdserverpb.Watch/Watch",
    ANSWER_BYTES_MAX = BATCH_ANSWER_BYTES_MAX
);
rpc!(LeaseGrantRequest, LeaseGrantResponse, "/etcdserverpb.Lease/LeaseGrant");
rpc!(LeaseRevokeRequest, LeaseRevokeResponse, "/etcdserverpb.Lease/LeaseRevoke");
rpc!(LeaseKeepAliveRequest, LeaseKeepAliveResponse, "/etcdserverpb.Lease/LeaseKeepAlive");
rpc!(
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    "/etcdserverpb.Lease/LeaseTimeToLive",
    ANSWER_BYTES_MAX = PAGE_ANSWER_BYTES_MAX
);
rpc!(
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    "/etcdserverpb.Lease/LeaseLeases",
    ANSWER_BYTES_MAX = PAGE_ANSWER_BYTES_MAX
);
rpc!(StatusRequest, StatusResponse, "/etcdserverpb.Maintenance/Status");
rpc!(AuthenticateRequest, AuthenticateResponse, "/etcdserverpb.Auth/Authenticate");

/// 24 MiB: the 16 MiB a page may have, and what surrounds 10,000 entries. What is larger is asked
/// for in smaller parts. A lease's 10,000 keys of 2 KiB fit too.
pub(crate) const PAGE_ANSWER_BYTES_MAX: usize = 25_165_824;

/// 64 MiB. A branch may read 128 pages, and a lease that ends delete 10,000 keys with what they
/// were; whoever asks for more than this of one revision gets no answer at all.
const BATCH_ANSWER_BYTES_MAX: usize = 67_108_864;
