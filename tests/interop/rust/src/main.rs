//! A program on the stock Rust SDK: what a server looks like to it, one line a fact.
//!
//!     runtara-trio-interop verbs ADDR ID          every verb, and what it answers
//!     runtara-trio-interop steps ADDR ID COUNT    a checkpoint a line, until a signal or the end
//!     runtara-trio-interop durable ADDR ID COUNT  functions under #[durable]
//!     runtara-trio-interop load ADDR ID CALL SIZE SECONDS TASKS INSTANCES
//!                                                 calls a second and their times, as JSON

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtara_sdk::{
    durable, register_sdk, stop_heartbeat, InstanceStatus, RuntaraSdk, SdkConfig, SignalType,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn sdk(addr: SocketAddr, id: &str) -> Result<RuntaraSdk, Failure> {
    let config = SdkConfig::localhost(id, "interop")
        .with_server_addr(addr)
        .with_signal_poll_interval_ms(10)
        .with_heartbeat_interval_ms(0);
    Ok(RuntaraSdk::new(config)?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn status(sdk: &RuntaraSdk, what: &str) -> Result<(), Failure> {
    let found = sdk.get_status().await?;
    println!(
        "{what}: status={:?} checkpoint={:?} output={:?} error={:?}",
        found.status,
        found.checkpoint_id,
        found.output.as_deref().map(text),
        found.error
    );
    Ok(())
}

async fn verbs(addr: SocketAddr, id: &str) -> Result<(), Failure> {
    let mut sdk = sdk(addr, id)?;
    sdk.connect().await?;
    println!("connected {}", sdk.is_connected().await);
    println!("resume of nothing is refused {}", sdk.register(Some("nothing")).await.is_err());
    println!("checkpoint before the register is refused {}", sdk.checkpoint("a", b"1").await.is_err());
    println!("read before the register is refused {}", sdk.get_checkpoint("a").await.is_err());
    sdk.register(None).await?;
    status(&sdk, "registered").await?;
    let first = sdk.checkpoint("a", b"one").await?;
    println!("first found={} state={:?}", first.found, text(&first.state));
    let again = sdk.checkpoint("a", b"two").await?;
    println!("again found={} state={:?}", again.found, text(&again.state));
    println!("read {:?}", sdk.get_checkpoint("a").await?.as_deref().map(text));
    println!("read nothing {:?}", sdk.get_checkpoint("b").await?);
    let large = vec![7u8; 3_000_000];
    println!("large found={}", sdk.checkpoint("large", &large).await?.found);
    println!("large same={}", sdk.get_checkpoint("large").await? == Some(large));
    println!("empty found={}", sdk.checkpoint("empty", b"").await?.found);
    println!("empty {:?}", sdk.get_checkpoint("empty").await?);
    sdk.heartbeat().await?;
    sdk.custom_event("note", b"payload".to_vec()).await?;
    sdk.record_retry_attempt("a", 1, Some("broken")).await?;
    sdk.sleep(Duration::from_millis(20), "nap", b"dream").await?;
    println!("no signal {:?}", sdk.poll_signal_now().await?.is_none());
    sdk.check_cancelled().await?;
    sdk.check_paused().await?;
    status(&sdk, "working").await?;
    sdk.suspended().await?;
    status(&sdk, "suspended").await?;
    println!("checkpoint while suspended is refused {}", sdk.checkpoint("c", b"").await.is_err());
    sdk.register(Some("a")).await?;
    status(&sdk, "again").await?;
    sdk.failed("it broke").await?;
    let found = sdk.get_status().await?;
    println!("failed: status={:?} error={:?}", found.status, found.error);
    sdk.register(None).await?;
    sdk.completed(b"done").await?;
    let found = sdk.get_status().await?;
    println!("completed: status={:?} output={:?}", found.status, found.output.as_deref().map(text));
    println!("checkpoint after the end is refused {}", sdk.checkpoint("c", b"").await.is_err());
    sdk.register(None).await?;
    sdk.acknowledge_signal(SignalType::Cancel, true).await?;
    let mut found = sdk.get_status().await?;
    while found.status == InstanceStatus::Running {
        found = sdk.get_status().await?; // nothing answers an acknowledgement
    }
    println!("cancelled: status={:?}", found.status);
    let other = sdk.get_instance_status("nobody").await?;
    println!("nobody: found={} status={:?}", other.found, other.status);
    sdk.close().await;
    Ok(())
}

async fn steps(addr: SocketAddr, id: &str, count: u64) -> Result<(), Failure> {
    let mut sdk = sdk(addr, id)?;
    sdk.connect().await?;
    sdk.register(None).await?;
    println!("registered");
    for n in 0..count {
        let mut patience = 600;
        let result = loop {
            match sdk.checkpoint(&format!("step-{n}"), n.to_string().as_bytes()).await {
                Ok(result) => break result,
                Err(error) => {
                    println!("error {error}");
                    patience -= 1;
                    if patience == 0 {
                        return Err(error.into());
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        println!("step {n} found={}", result.found);
        if let Some(custom) = &result.custom_signal {
            println!("custom {} {:?}", custom.checkpoint_id, text(&custom.payload));
        }
        if result.should_cancel() {
            sdk.acknowledge_signal(SignalType::Cancel, true).await?;
            while sdk.get_status().await?.status == InstanceStatus::Running {}
            println!("cancelled");
            return Ok(());
        }
        if result.should_pause() {
            sdk.acknowledge_signal(SignalType::Pause, true).await?;
            sdk.suspended().await?;
            println!("suspended");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sdk.completed(b"all").await?;
    println!("completed");
    sdk.close().await;
    Ok(())
}

static RUNS: AtomicU64 = AtomicU64::new(0);

#[durable]
async fn double(key: String, value: u64) -> Result<u64, String> {
    RUNS.fetch_add(1, Ordering::SeqCst);
    let _ = key;
    Ok(value * 2)
}

#[durable(max_retries = 3, delay = 1)]
async fn third_time(key: String) -> Result<u64, String> {
    let run = RUNS.fetch_add(1, Ordering::SeqCst);
    let _ = key;
    if run < 2 { Err(format!("run {run} failed")) } else { Ok(run) }
}

async fn durable_calls(addr: SocketAddr, id: &str, count: u64) -> Result<(), Failure> {
    let mut sdk = sdk(addr, id)?;
    sdk.connect().await?;
    sdk.register(None).await?;
    register_sdk(sdk);
    println!("retried {:?}", third_time("once".into()).await);
    RUNS.store(0, Ordering::SeqCst);
    let mut sum = 0;
    for n in 0..count {
        sum += double(format!("n{n}"), n).await?;
    }
    println!("sum {sum} runs {}", RUNS.load(Ordering::SeqCst));
    stop_heartbeat();
    runtara_sdk::sdk().lock().await.completed(b"").await?;
    Ok(())
}

struct Load {
    call: String,
    state: Vec<u8>,
    until: Instant,
    errors: AtomicU64,
}

async fn stored(sdk: &RuntaraSdk) -> Option<usize> {
    sdk.get_checkpoint("stored").await.ok().flatten().map(|state| state.len())
}

async fn one_task(load: Arc<Load>, sdk: Arc<RuntaraSdk>, name: String) -> Vec<u32> {
    let mut times = Vec::new();
    while Instant::now() < load.until {
        let start = Instant::now();
        let well = match load.call.as_str() {
            "checkpoint" => sdk
                .checkpoint(&format!("{name}-{}", times.len()), &load.state)
                .await
                .is_ok(),
            _ => stored(&sdk).await == Some(load.state.len()),
        };
        if !well {
            load.errors.fetch_add(1, Ordering::Relaxed);
        }
        times.push(start.elapsed().as_micros() as u32);
    }
    times
}

async fn load(addr: SocketAddr, id: &str, rest: &[String]) -> Result<(), Failure> {
    let size: usize = rest[1].parse()?;
    let seconds: f64 = rest[2].parse()?;
    let tasks: usize = rest[3].parse()?;
    let instances: usize = rest[4].parse()?;
    let mut sdks = Vec::new();
    for n in 0..instances {
        let mut sdk = sdk(addr, &format!("{id}-{n}"))?;
        sdk.connect().await?;
        let mut tries = 0;
        while let Err(error) = sdk.register(None).await {
            tries += 1;
            if tries == 100 {
                return Err(error.into());
            }
        }
        while stored(&sdk).await != Some(size) {
            let _ = sdk.checkpoint("stored", &vec![b'x'; size]).await;
        }
        sdks.push(Arc::new(sdk));
    }
    let begun = Instant::now();
    let load = Arc::new(Load {
        call: rest[0].clone(),
        state: vec![b'x'; size],
        until: begun + Duration::from_secs_f64(seconds),
        errors: AtomicU64::new(0),
    });
    let run = std::process::id();
    let handles: Vec<_> = (0..tasks.max(instances))
        .map(|n| {
            let sdk = sdks[n % instances].clone();
            tokio::spawn(one_task(load.clone(), sdk, format!("{run}-{n}")))
        })
        .collect();
    let mut times = Vec::new();
    for handle in handles {
        times.extend(handle.await?);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    println!(
        "{}",
        serde_json::json!({
            "calls": times.len(),
            "seconds": elapsed,
            "errors": load.errors.load(Ordering::Relaxed),
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
        })
    );
    for sdk in &sdks {
        let _ = sdk.completed(b"").await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let addr: SocketAddr = args[1].parse()?;
    let id = args[2].as_str();
    match args[0].as_str() {
        "verbs" => verbs(addr, id).await,
        "steps" => steps(addr, id, args[3].parse()?).await,
        "durable" => durable_calls(addr, id, args[3].parse()?).await,
        "load" => load(addr, id, &args[3..]).await,
        other => Err(format!("no such program: {other}").into()),
    }
}
