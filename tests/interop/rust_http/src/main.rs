//! A program on the stock Rust SDK 1.6: what a server over HTTP looks like to it, one line a fact.
//!
//!     runtara-trio-interop-http verbs URL ID          every verb, and what it answers
//!     runtara-trio-interop-http steps URL ID COUNT    a checkpoint a line, until a signal or the end
//!     runtara-trio-interop-http durable URL ID COUNT  functions under #[durable]
//!     runtara-trio-interop-http load URL ID CALL SIZE SECONDS THREADS
//!                                                     calls a second and their times, as JSON

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runtara_sdk::{
    durable, register_sdk, HttpSdkConfig, RuntaraSdk, SignalType,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn sdk(url: &str, id: &str) -> Result<RuntaraSdk, Failure> {
    Ok(RuntaraSdk::new(HttpSdkConfig {
        instance_id: id.into(),
        tenant_id: "interop".into(),
        base_url: url.into(),
        request_timeout_ms: 30_000,
        signal_poll_interval_ms: 10,
        heartbeat_interval_ms: 0,
    })?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn status(sdk: &RuntaraSdk, what: &str) -> Result<(), Failure> {
    let found = sdk.get_status()?;
    println!(
        "{what}: status={:?} checkpoint={:?} output={:?} error={:?}",
        found.status,
        found.checkpoint_id,
        found.output.as_deref().map(text),
        found.error
    );
    Ok(())
}

fn verbs(url: &str, id: &str) -> Result<(), Failure> {
    let mut sdk = sdk(url, id)?;
    sdk.connect()?;
    println!("connected {}", sdk.is_connected());
    println!("resume of nothing is refused {}", sdk.register(Some("nothing")).is_err());
    println!("checkpoint before the register {}", sdk.checkpoint("a", b"1").unwrap_err());
    println!("read before the register {}", sdk.get_checkpoint("a").unwrap_err());
    sdk.register(None)?;
    status(&sdk, "registered")?;
    println!("input {:?}", sdk.load_input()?);
    let first = sdk.checkpoint("a", b"one")?;
    println!("first found={} state={:?}", first.found, text(&first.state));
    let again = sdk.checkpoint("a", b"two")?;
    println!("again found={} state={:?}", again.found, text(&again.state));
    println!("read {:?}", sdk.get_checkpoint("a")?.as_deref().map(text));
    println!("read nothing {:?}", sdk.get_checkpoint("b")?);
    let large = vec![7u8; 3_000_000];
    println!("large found={}", sdk.checkpoint("large", &large)?.found);
    println!("large same={}", sdk.get_checkpoint("large")? == Some(large));
    println!("empty found={}", sdk.checkpoint("empty", b"")?.found);
    println!("empty is a question {:?}", sdk.get_checkpoint("empty")?);
    println!("a strange id found={}", sdk.checkpoint("ä / b?c#d%e", b"x")?.found);
    println!("a strange id {:?}", sdk.get_checkpoint("ä / b?c#d%e")?.as_deref().map(text));
    sdk.heartbeat()?;
    sdk.custom_event("note", b"payload".to_vec())?;
    sdk.record_retry_attempt("a", 1, Some("broken"))?;
    sdk.sleep(Duration::from_millis(20), "nap", b"dream")?;
    println!("dreamt {:?}", sdk.get_checkpoint("nap")?.as_deref().map(text));
    println!("no signal {:?}", sdk.poll_signal_now()?.is_none());
    println!("no custom signal {:?}", sdk.poll_custom_signal("a / b")?);
    sdk.check_cancelled()?;
    sdk.check_paused()?;
    sdk.check_signals()?;
    status(&sdk, "working")?;
    sdk.suspended()?;
    status(&sdk, "suspended")?;
    println!("checkpoint while suspended {}", sdk.checkpoint("c", b"").unwrap_err());
    sdk.register(Some("a"))?;
    status(&sdk, "again")?;
    sdk.acknowledge_signal(SignalType::Pause)?;
    status(&sdk, "paused")?;
    sdk.suspended()?;
    status(&sdk, "suspended after it")?;
    sdk.completed(b"too late")?;
    status(&sdk, "completed after it")?;
    sdk.register(None)?;
    sdk.failed("it broke")?;
    let found = sdk.get_status()?;
    println!("failed: status={:?} error={:?}", found.status, found.error);
    println!("checkpoint after the end {}", sdk.checkpoint("c", b"").unwrap_err());
    sdk.register(None)?;
    sdk.acknowledge_signal(SignalType::Resume)?;
    sdk.completed(b"done")?;
    let found = sdk.get_status()?;
    println!("completed: status={:?} output={:?}", found.status, found.output.as_deref().map(text));
    sdk.register(None)?;
    sdk.acknowledge_signal(SignalType::Cancel)?;
    // The SDK knows no text "cancelled": it calls that unknown.
    println!("cancelled: status={:?}", sdk.get_status()?.status);
    let other = sdk.get_instance_status("nobody")?;
    println!("nobody: found={} status={:?} error={:?}", other.found, other.status, other.error);
    sdk.close();
    Ok(())
}

fn steps(url: &str, id: &str, count: u64) -> Result<(), Failure> {
    let mut sdk = sdk(url, id)?;
    sdk.connect()?;
    sdk.register(None)?;
    println!("registered");
    for n in 0..count {
        let mut patience = 600;
        let result = loop {
            match sdk.checkpoint(&format!("step-{n}"), n.to_string().as_bytes()) {
                Ok(result) => break result,
                Err(error) => {
                    println!("error {error}");
                    patience -= 1;
                    if patience == 0 {
                        return Err(error.into());
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        };
        println!("step {n} found={}", result.found);
        if let Some(custom) = &result.custom_signal {
            println!("custom {} {:?}", custom.checkpoint_id, text(&custom.payload));
        }
        if result.should_cancel() {
            sdk.acknowledge_signal(SignalType::Cancel)?;
            println!("cancelled");
            return Ok(());
        }
        if result.should_pause() {
            sdk.acknowledge_signal(SignalType::Pause)?;
            sdk.suspended()?;
            println!("suspended");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    sdk.completed(b"all")?;
    println!("completed");
    sdk.close();
    Ok(())
}

static RUNS: AtomicU64 = AtomicU64::new(0);

#[durable]
fn double(key: String, value: u64) -> Result<u64, String> {
    RUNS.fetch_add(1, Ordering::SeqCst);
    let _ = key;
    Ok(value * 2)
}

#[durable(max_retries = 3, delay = 1)]
fn third_time(key: String) -> Result<u64, String> {
    let run = RUNS.fetch_add(1, Ordering::SeqCst);
    let _ = key;
    if run < 2 { Err(format!("run {run} failed")) } else { Ok(run) }
}

fn durable_calls(url: &str, id: &str, count: u64) -> Result<(), Failure> {
    let mut sdk = sdk(url, id)?;
    sdk.connect()?;
    sdk.register(None)?;
    register_sdk(sdk);
    println!("retried {:?}", third_time("once".into()));
    RUNS.store(0, Ordering::SeqCst);
    let mut sum = 0;
    for n in 0..count {
        sum += double(format!("n{n}"), n)?;
    }
    println!("sum {sum} runs {}", RUNS.load(Ordering::SeqCst));
    runtara_sdk::sdk().lock().map_err(|_| "poisoned")?.completed(b"")?;
    Ok(())
}

fn one_thread(sdk: &mut RuntaraSdk, call: &str, state: &[u8], until: Instant) -> (Vec<u32>, u64) {
    let run = std::process::id();
    let (mut times, mut errors) = (Vec::new(), 0);
    while Instant::now() < until {
        let start = Instant::now();
        let well = match call {
            "checkpoint" => sdk.checkpoint(&format!("{run}-{}", times.len()), state).is_ok(),
            "signals" => sdk.poll_signal_now().is_ok(),
            _ => matches!(sdk.get_checkpoint("stored"), Ok(Some(found)) if found.len() == state.len()),
        };
        if !well {
            errors += 1;
        }
        times.push(start.elapsed().as_micros() as u32);
    }
    (times, errors)
}

fn load(url: &str, id: &str, rest: &[String]) -> Result<(), Failure> {
    let call = rest[0].clone();
    let size: usize = rest[1].parse()?;
    let seconds: f64 = rest[2].parse()?;
    let threads: usize = rest[3].parse()?;
    let state = vec![b'x'; size];
    let mut sdks = Vec::new();
    for n in 0..threads {
        let mut sdk = sdk(url, &format!("{id}-{n}"))?;
        let mut tries = 0;
        while let Err(error) = sdk.register(None) {
            tries += 1;
            if tries == 100 {
                return Err(error.into());
            }
        }
        while !matches!(sdk.get_checkpoint("stored"), Ok(Some(_))) {
            let _ = sdk.checkpoint("stored", &state);
        }
        sdks.push(sdk);
    }
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(seconds);
    let handles: Vec<_> = sdks
        .into_iter()
        .map(|mut sdk| {
            let (call, state) = (call.clone(), state.clone());
            std::thread::spawn(move || {
                let found = one_thread(&mut sdk, &call, &state, until);
                (found, sdk)
            })
        })
        .collect();
    let (mut times, mut errors, mut ended) = (Vec::new(), 0, Vec::new());
    for handle in handles {
        let ((mine, wrong), sdk) = handle.join().map_err(|_| "a thread failed")?;
        times.extend(mine);
        errors += wrong;
        ended.push(sdk);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    println!(
        "{}",
        serde_json::json!({
            "calls": times.len(),
            "seconds": elapsed,
            "errors": errors,
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
        })
    );
    for sdk in &ended {
        let _ = sdk.completed(b"");
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (url, id) = (args[1].as_str(), args[2].as_str());
    match args[0].as_str() {
        "verbs" => verbs(url, id),
        "steps" => steps(url, id, args[3].parse()?),
        "durable" => durable_calls(url, id, args[3].parse()?),
        "load" => load(url, id, &args[3..]),
        other => Err(format!("no such program: {other}").into()),
    }
}
