//! `nearhop load emulate`: regions on this machine, each of real processes with an address of its own,
//! and a socket through which they are made to fail. The plan is [`nearhop_load::world`]; here are the
//! processes.

mod material;
mod running;
mod settle;

use std::path::PathBuf;

use anyhow::Context as _;
use nearhop_conf::Log;
use nearhop_load::{
    control::serve,
    world::{Asked, Layout, words},
};
use tokio::{
    net::UnixListener,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use self::running::{BEAT, LOOK, Running};
use crate::{built_in::find_model, lifeline, log::Logging, print_line};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Regions by name, us-west,eu-west,ap-south, or how many of them
    #[arg(long, default_value = "3", value_name = "NAMES")]
    regions: String,
    /// Inference pods of each region
    #[arg(long, default_value_t = 2)]
    pods: usize,
    /// DNS servers, at places of their own
    #[arg(long, default_value_t = 2)]
    dns_servers: usize,
    /// Delays between places, as a multiple of what they are between such places on Earth
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    delay_scale: f64,
    /// The model folder
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print one JSON line when ready instead of words: a target for `nearhop load run`
    #[arg(long)]
    ready_json: bool,
    /// Stop when standard input ends: for a parent that may die without a word
    #[arg(long, hide = true)]
    lifeline: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let _logging = Logging::start(&Log::default());
    let layout = Layout::new(&Asked {
        regions: args.regions.clone(),
        pods: args.pods,
        servers: args.dns_servers,
        scale: args.delay_scale,
    })?;
    let model = find_model(args.model.as_deref())?;
    // One thread: it waits, and children end with the thread that started them.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        // Before the first child: a signal from now on must find somebody who ends them.
        let stopped = lifeline::stopped(args.lifeline)?;
        let mut running = Running::prepare(layout, &model)?;
        let ended = tokio::select! {
            ended = work(args, &mut running) => ended,
            () = stopped => Ok(()),
        };
        running.stop().await;
        ended
    })
}

/// Starts everything, then does what is asked; returns only when it cannot go on.
async fn work(args: &Args, running: &mut Running) -> anyhow::Result<()> {
    running.start().await?;
    settle::everybody_sees_everybody(running).await?;
    let control = running.control();
    let listener = UnixListener::bind(&control)
        .with_context(|| format!("no socket at {}", control.display()))?;
    let (send, mut requests) = mpsc::channel(1);
    tokio::spawn(serve(listener, send));
    let (world, material) = (running.world(), running.material());
    print_line(&match args.ready_json {
        true => world.target(material, &control).to_string(),
        false => words(world, material, &control, "nearhop"),
    })?;
    let (mut look, mut beat) = (interval(LOOK), interval(BEAT));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(request) = requests.recv() => {
                let answer = running.answer(&request.action).await;
                // Whoever asked may be gone; it is done.
                let _ = request.answer.send(answer);
            }
            _ = look.tick() => running.look(),
            _ = beat.tick(), if running.has_slow() => running.beat(),
        }
    }
}
