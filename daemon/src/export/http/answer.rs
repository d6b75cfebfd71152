//! The router's answers on one connection: each is noted at the connection's [`Seat`] until it is sent, and is handed
//! on in pieces, so that a reader that takes nothing is seen.

use super::places::{Answering, Places, Seat};
use super::request_body::RequestBody;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Size of the pieces, in bytes.
const PIECE: usize = 32 << 10;

/// Marks, among the extensions of an answer, a body without an end, of which each frame is made anew.
#[derive(Clone, Copy, Debug)]
pub(in crate::export) struct Endless;

/// The router as hyper calls it.
#[derive(Clone)]
pub(super) struct Answers {
    pub router: Router,
    pub places: Arc<Places>,
    pub seat: Arc<Seat>,
}

impl hyper::service::Service<Request<Incoming>> for Answers {
    type Response = Response<Noted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Noted>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut answering = self.seat.begin();
        // Who expects to be asked for the body has not sent it.
        let sends = !request.headers().contains_key(header::EXPECT);
        let (head, body) = request.into_parts();
        let (body, unread) = RequestBody::new(body, Arc::clone(&self.seat));
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(self.seat.peer);
        request.extensions_mut().insert(Arc::clone(&self.places));
        let answer = TowerToHyperService::new(self.router.clone()).call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if sends {
                unread.dropped().await;
            }
            answering.sending(answer.status().is_success());
            let endless = answer.extensions().get::<Endless>().is_some();
            Ok(answer.map(|body| Noted { body, rest: Bytes::new(), answering, endless }))
        })
    }
}

/// A body that notes its progress.
pub(in crate::export) struct Noted<B = Body> {
    body: B,
    rest: Bytes,
    answering: Answering,
    endless: bool,
}

impl<B> Noted<B> {
    /// Notes the progress of `body`, whose frames are each made anew.
    pub fn endless(body: B, answering: Answering) -> Self {
        Self { body, rest: Bytes::new(), answering, endless: true }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Noted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            let next = Pin::new(&mut this.body).poll_frame(cx);
            if next.is_pending() && this.endless {
                this.answering.waits();
            }
            let Some(frame) = ready!(next).transpose()? else { return Poll::Ready(None) };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
            this.answering.moved(this.endless);
        } else {
            this.answering.moved(false);
        }
        let piece = this.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(this.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// A body of several texts one after the other, which may be shared with other answers.
pub(in crate::export) struct Texts<const N: usize>(pub [Bytes; N]);

impl<const N: usize> HttpBody for Texts<N> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.iter_mut().find(|text| !text.is_empty()).map(std::mem::take);
        Poll::Ready(next.map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.iter().all(|text| text.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|text| text.len() as u64).sum())
    }
}
