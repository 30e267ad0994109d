//! In the place of Nexus in the benchmark `cache`.

use opendal::Operator;
use opendal::services::Redis;

use crate::redis_content::{AT_ONCE, key, round};
use crate::{each_line, runtime};

/// For each line, what names begin with: gets values, and tells how long all took. Each get under way has a connection.
pub(crate) fn run(port: &str) {
    opendal::install_default();
    let told =
        Redis::default().endpoint(&format!("redis://127.0.0.1:{port}")).connection_pool_max_size(AT_ONCE);
    let (runtime, store) = (runtime(), Operator::new(told).expect("the options are right"));
    each_line(|prefix| {
        let get = |number| {
            let (store, name) = (&store, [prefix, &key(number)].concat());
            async move { store.read(&name).await.expect("it was put").to_bytes() }
        };
        runtime.block_on(round(get))
    });
}
