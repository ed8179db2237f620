//! Trees of jobs: arguments taken apart, the engine called, the answer sent to the port.

use std::{future::Future, sync::Arc};

use pyo3::prelude::*;
use toromq_core::{
    error::Result,
    flow::{Extent, Flow, Flows, NewNode},
    keys::QueueKeys,
};

use crate::{
    connection::NativeConnection,
    port::{Item, Port},
    queue::ToAdd,
    runtime::{self, OfProcess},
};

/// What adds trees and reads them.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct NativeFlows {
    flows: OfProcess<Arc<Flows>>,
}

/// A job of a tree, as Python gives it: where its queue stands, its place, whether its id was made for it, whether it has
/// children, the job.
#[derive(FromPyObject)]
struct NodeToAdd(usize, String, bool, bool, ToAdd);

impl From<NodeToAdd> for NewNode {
    fn from(NodeToAdd(queue, place, made, parent, job): NodeToAdd) -> Self {
        Self {
            queue,
            place,
            made,
            parent,
            job: job.into(),
        }
    }
}

impl NativeFlows {
    fn start<F>(port: &Port, ticket: u64, future: F) -> PyResult<()>
    where
        F: Future<Output = Result<Item>> + Send + 'static,
    {
        let inbox = Arc::clone(&port.inbox);
        runtime::handle()?.spawn(async move {
            inbox.put(ticket, future.await.unwrap_or_else(Item::Failed));
        });
        Ok(())
    }
}

#[pymethods]
impl NativeFlows {
    #[new]
    fn new(connection: &NativeConnection) -> Self {
        Self {
            flows: OfProcess::new(Arc::new(Flows::new(connection.link()))),
        }
    }

    /// Answers with what became of each job.
    fn add(
        &self,
        port: &Port,
        ticket: u64,
        queues: Vec<(String, String)>,
        nodes: Vec<NodeToAdd>,
    ) -> PyResult<()> {
        let flow = Flow {
            queues: queues
                .iter()
                .map(|(prefix, name)| QueueKeys::new(prefix, name))
                .collect(),
            nodes: nodes.into_iter().map(NewNode::from).collect(),
        };
        let flows = Arc::clone(&self.flows);
        Self::start(port, ticket, async move {
            let added = flows.add(&flow).await?;
            Ok(Item::Added(added.into_iter().map(Ok).collect()))
        })
    }

    /// Answers with the jobs of a tree, the topmost first.
    #[allow(clippy::too_many_arguments)]
    fn read(
        &self,
        port: &Port,
        ticket: u64,
        prefix: &str,
        queue: &str,
        id: String,
        depth: usize,
        children: usize,
        states: bool,
    ) -> PyResult<()> {
        let keys = QueueKeys::new(prefix, queue);
        let extent = Extent {
            depth,
            children,
            states,
        };
        let flows = Arc::clone(&self.flows);
        Self::start(port, ticket, async move {
            flows.read(&keys, &id, extent).await.map(Item::Tree)
        })
    }

    fn wait_until_ready(&self, port: &Port, ticket: u64) -> PyResult<()> {
        let flows = Arc::clone(&self.flows);
        Self::start(port, ticket, async move {
            flows.wait_until_ready().await.map(|()| Item::None)
        })
    }
}
