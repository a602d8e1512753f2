//! Lists and watches, and begins anew when history is gone.

use mainstay_store::{Range, RangeRequest, Store as _, WatchItem, WatchRequest};

use super::Seen;
use super::pairs::key;
use crate::node::Node;

/// Watches for as long as the process lives.
pub async fn run(node: Node, seen: Seen) {
    loop {
        let range = match node.draw.below(4) {
            0 => Range::all(),
            1 => Range::key(&key("kv/1")),
            _ => Range::prefix("kv/"),
        };
        let Ok(page) = node.link.range(RangeRequest::from(range.clone())).await else {
            node.sleep(node.draw.millis(50, 500)).await;
            continue;
        };
        let listed = node.server.recorded(|recorder| {
            recorder.at(page.revision, &range).values().eq(page.entries.iter())
        });
        if !listed {
            node.server.wrong(format!("the list at {} is not what was there", page.revision));
        }
        let request = WatchRequest::new(range).from(page.revision.next());
        let request = match node.draw.below(4) {
            0 => request.deletes_only().previous(),
            1 => request.puts_only(),
            2 => request.quiet(),
            _ => request.previous(),
        };
        let stream = seen.stream(request.clone());
        let Ok(mut watch) = node.link.watch(request) else { continue };
        while let Some(item) = watch.next().await {
            seen.count("watch items");
            if matches!(item, WatchItem::Compacted { .. }) {
                node.server.note(|| format!("{}: its watch was compacted", node.name));
                seen.count("watches begun anew");
            }
            stream.lock().items.push(item);
        }
    }
}
