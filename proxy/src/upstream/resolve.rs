//! Where providers' names point: looked up beside requests, so that none waits for a name server.

use futures_util::future::join_all;
use nearhop_discovery::Resolver;
use nearhop_routing::Class;

use super::{member::Upstream, pool::Upstreams, provider::Follows};

/// Looks up the names of all providers once, each by itself: one that is silent must not keep the
/// others. Who cannot be looked up stays where it was.
pub(crate) async fn resolve(upstreams: &Upstreams, resolver: &Resolver) {
    let all = upstreams.of(Class::Provider);
    join_all(all.iter().map(|upstream| resolve_one(upstreams, upstream, resolver))).await;
}

async fn resolve_one(upstreams: &Upstreams, upstream: &Upstream, resolver: &Resolver) {
    let Some(provider) = upstream.role.provider() else { return };
    let (name, port) = provider.place();
    let found = match resolver.addresses(name, port).await {
        Ok(answer) => answer.found,
        Err(trouble) => {
            tracing::warn!(provider = upstream.name, %trouble, "its name cannot be resolved");
            return;
        }
    };
    let current = upstream.peer.load().as_ref().and_then(|peer| peer._address.as_inet().copied());
    match provider.follow(&found, current) {
        Follows::To(address) => upstreams.resolved(upstream, address),
        Follows::Stays => {
            tracing::warn!(
                provider = upstream.name,
                "its name has no address; it stays where it was"
            );
        }
        Follows::Nowhere => {
            let fix = "its name has none that is public; `private: true` allows others";
            tracing::warn!(provider = upstream.name, fix, "no address to connect to");
            upstream.peer.store(None);
        }
    }
}
