"""KeepInteresting: what is bad, slow, rejected or injected is exported whole, a share of the rest, and what is held is bounded."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags, set_span_in_context

from somaresil import CircuitBreaker, CircuitOpen, ConfigurationError, ManualClock, Resilience
from somaresil.integrations._exemplars import current_trace
from somaresil.integrations.opentelemetry import span_events
from somaresil.integrations.otelsampler import KEPT, RATIO, KeepInteresting

SECOND = 1_000_000_000


class Stand:
    """A provider with the processor, and what comes out of it."""

    def __init__(self, **options):
        self.clock = ManualClock()
        self.exporter = InMemorySpanExporter()
        options = {"ratio": 0.0, **options}
        self.keep = KeepInteresting(SimpleSpanProcessor(self.exporter), clock=self.clock, **options)
        self.provider = TracerProvider(sampler=self.keep.sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(self.keep)
        self.tracer = self.provider.get_tracer("tests")

    def names(self):
        return [span.name for span in self.exporter.get_finished_spans()]

    def why(self):
        return [span.attributes[KEPT] for span in self.exporter.get_finished_spans() if KEPT in span.attributes]

    def request(self, name="request", child="child", *, parent=None, act=None, seconds=0.0):
        """One trace: a local root with a child in which ``act`` happens. The ids of the trace."""
        context = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
        root = self.tracer.start_span(name, context=context, start_time=SECOND)
        inner = self.tracer.start_span(child, context=set_span_in_context(root))
        if act is not None:
            act(inner)
        inner.end()
        root.end(SECOND + int(seconds * SECOND))
        return root.get_span_context()


@pytest.fixture
def stand():
    made = []

    def make(**options):
        made.append(Stand(**options))
        return made[-1]

    yield make
    for one in made:
        one.provider.shutdown()


def remote(sampled, trace_id=0x1234, span_id=0x77):
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(sampled)))


# -- what is kept -----------------------------------------------------------------------------------------------------------------------


def test_a_trace_in_which_nothing_happened_is_dropped(stand):
    """With a share of nothing."""
    one = stand()
    one.request()
    assert one.names() == []
    assert one.keep.counts().dropped == 1
    assert one.keep.counts().held == 0


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (lambda span: span.set_status(StatusCode.ERROR), "bad"),
        (lambda span: span.set_attribute("http.response.status_code", 503), "bad"),
        (lambda span: span.set_attribute("http.status_code", 500), "bad"),
        (lambda span: span.set_attribute("somaresil.outcome", "bad"), "bad"),
        (lambda span: span.add_event("somaresil.call_ended", {"somaresil.outcome": "bad"}), "bad"),
        (lambda span: span.add_event("somaresil.fallback_used", {"somaresil.error": "ValueError"}), "bad"),
        (lambda span: span.add_event("somaresil.call_ended", {"somaresil.outcome": "rejected"}), "rejected"),
        (lambda span: span.set_attribute("somaresil.injected", True), "injected"),
        (lambda span: span.add_event("somaresil.fault_injected", {"somaresil.fault": "latency"}), "injected"),
    ],
)
def test_a_trace_in_which_something_happened_is_kept_whole(stand, act, why):
    """Root and child, flagged as sampled, and the root says why."""
    one = stand()
    one.request(act=act)
    assert one.names() == ["child", "request"]
    assert one.why() == [why]
    assert all(span.context.trace_flags.sampled for span in one.exporter.get_finished_spans())
    assert one.keep.counts().kept == {why: 1}


@pytest.mark.parametrize(
    "act",
    [
        lambda span: span.set_attribute("http.response.status_code", 404),
        lambda span: span.set_attribute("somaresil.outcome", "abandoned"),
        lambda span: span.add_event("somaresil.retry_scheduled", {}),
        lambda span: span.set_status(StatusCode.OK),
    ],
)
def test_what_is_nobodys_fault_is_not_interesting(stand, act):
    """A 404, somebody who left, a retry that went well after all."""
    one = stand()
    one.request(act=act)
    assert one.names() == []


def test_what_was_kept_is_what_was_recorded(stand):
    """Attributes, events, links, times, status, parent, kind and resource are as they were."""
    one = stand()

    def act(span):
        span.set_attribute("k", "v")
        span.add_event("e", {"a": 1})
        span.add_link(remote(sampled=True))
        span.set_status(StatusCode.ERROR, "why")

    one.request(act=act)
    child, root = one.exporter.get_finished_spans()
    assert child.attributes == {"k": "v"}
    assert [(event.name, dict(event.attributes)) for event in child.events] == [("e", {"a": 1})]
    assert child.links[0].context.trace_id == 0x1234
    assert (child.status.status_code, child.status.description) == (StatusCode.ERROR, "why")
    assert child.parent.span_id == root.context.span_id
    assert child.resource is one.provider.resource
    assert child.instrumentation_scope.name == "tests"
    assert child.start_time <= child.end_time
    assert root.start_time == SECOND


def test_a_slow_request_is_kept(stand):
    """From the limit on; how long a child takes does not matter."""
    one = stand(slow=2.0)
    one.request("quick", seconds=1.9)
    one.request("slow", seconds=2.0)
    assert one.names() == ["child", "slow"]
    assert one.why() == ["slow"]


def test_what_is_slow_depends_on_the_request(stand):
    """The first pattern that fits says it; where none fits nothing is slow."""
    one = stand(slow={"GET /v1/*/stream": 30.0, "GET *": 1.0})
    one.request("GET /v1/llm/stream", seconds=20.0)
    one.request("GET /v1/x", seconds=20.0)
    one.request("POST /v1/x", seconds=20.0)
    assert one.names() == ["child", "GET /v1/x"]
    two = stand(slow=None)
    two.request(seconds=500.0)
    assert two.names() == []


def test_others_may_be_wanted_too(stand, caplog):
    """By a function; one that raises is reported once, and means no."""
    one = stand(also=lambda span: span.name == "checkout")
    one.request("checkout")
    one.request("other")
    assert one.why() == ["also"]
    two = stand(also=lambda _: 1 / 0)
    two.request()
    two.request()
    assert two.names() == []
    assert [record.levelno for record in caplog.records if "also of KeepInteresting" in record.message] == [logging.ERROR]


def test_of_several_reasons_the_weightiest_is_told(stand):
    """Injected goes before bad, wherever it was found."""
    one = stand()

    def act(span):
        span.set_status(StatusCode.ERROR)
        other = one.tracer.start_span("struck", context=set_span_in_context(span))
        other.set_attribute("somaresil.injected", value=True)
        other.end()

    one.request(act=act, seconds=99.0)
    assert one.why() == ["injected"]


# -- the share --------------------------------------------------------------------------------------------------------------------------


@given(trace_id=st.integers(min_value=1, max_value=(1 << 128) - 1), ratio=st.floats(min_value=0.0, max_value=1.0))
@settings(max_examples=300, deadline=None)
def test_the_share_is_that_of_the_sdk(trace_id, ratio):
    """Services that use ``TraceIdRatioBased`` with this ratio keep the same traces."""
    keep = KeepInteresting(SimpleSpanProcessor(InMemorySpanExporter()), ratio=ratio)
    theirs = TraceIdRatioBased(ratio).should_sample(None, trace_id, "span").decision.is_sampled()
    assert keep.sampled_by_ratio(trace_id) is theirs
    keep.shutdown()


def test_the_share_is_kept_and_says_how_large_it_is(stand):
    """About a tenth of two thousand, so that what was counted can be scaled up."""
    one = stand(ratio=0.1)
    for _ in range(2_000):
        one.request()
    kept = one.keep.counts().kept["sampled"]
    assert 130 <= kept <= 270
    roots = [span for span in one.exporter.get_finished_spans() if span.name == "request"]
    assert len(roots) == kept
    assert {(span.attributes[KEPT], span.attributes[RATIO]) for span in roots} == {("sampled", 0.1)}
    assert one.keep.counts().dropped == 2_000 - kept


def test_what_the_caller_samples_is_kept(stand):
    """A sampled parent elsewhere: the trace is wanted. One that is not sampled: only when it is interesting, whatever the share."""
    one = stand(ratio=0.0)
    one.request(parent=remote(sampled=True))
    assert one.why() == ["sampled"]
    assert RATIO not in one.exporter.get_finished_spans()[-1].attributes
    two = stand(ratio=1.0)
    two.request(parent=remote(sampled=False))
    assert two.names() == []
    two.request(parent=remote(sampled=False), act=lambda span: span.set_status(StatusCode.ERROR))
    assert two.names() == ["child", "request"]


# -- what others are told ---------------------------------------------------------------------------------------------------------------


def sampled_elsewhere(span):
    """What the header of a request that is made in this span says."""
    headers = {}
    inject(headers, context=set_span_in_context(span))
    return bool(int(headers["traceparent"].rpartition("-")[2], 16) & 1)


def test_what_is_asked_after_a_fault_was_injected_is_sampled(stand):
    """The flag goes out from then on, and a service that follows its parent keeps its part. Before, nobody could know."""
    one = stand()
    with one.tracer.start_as_current_span("request") as request:
        with one.tracer.start_as_current_span("before") as before:
            assert not sampled_elsewhere(before)
        request.set_attribute("somaresil.injected", value=True)
        with one.tracer.start_as_current_span("after") as after:
            assert sampled_elsewhere(after)
    downstream = ParentBased(TraceIdRatioBased(0.0))
    parent = set_span_in_context(NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=after.get_span_context().trace_flags)))
    assert downstream.should_sample(parent, 1, "downstream").decision.is_sampled()
    assert one.names() == ["before", "after", "request"]


def test_what_is_asked_after_a_failed_attempt_is_sampled(stand):
    """A child that has ended badly makes the trace interesting for what comes then."""
    one = stand()
    with one.tracer.start_as_current_span("request") as request:
        first = one.tracer.start_span("first")
        first.set_status(StatusCode.ERROR)
        first.end()
        assert one.keep.is_interesting(request.get_span_context().trace_id)
        second = one.tracer.start_span("second")
        assert sampled_elsewhere(second)
        second.end()


def test_the_tracestate_of_others_is_passed_on(stand):
    """We add nothing to it."""
    from opentelemetry.trace.span import TraceState

    one = stand()
    parent = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(0), trace_state=TraceState([("vendor", "x")]))
    with one.tracer.start_as_current_span("request", context=set_span_in_context(NonRecordingSpan(parent))) as span:
        assert span.get_span_context().trace_state.to_header() == "vendor=x"


def test_a_guard_that_rejects_is_kept(stand):
    """With span events, the whole way: the call that the circuit rejects, and no other."""
    one = stand()
    resilience = Resilience("service", clock=ManualClock(), seed=1)
    resilience.on(span_events())
    guard = resilience.guard("db", breaker=CircuitBreaker(consecutive_failures=1))
    with one.tracer.start_as_current_span("good"):
        guard.call(int)
    resilience.breaker("db").trip()
    with one.tracer.start_as_current_span("refused"), pytest.raises(CircuitOpen), one.tracer.start_as_current_span("inner"):
        guard.call(int)
    assert set(one.names()) == {"inner", "refused"}
    assert one.keep.counts().kept == {"rejected": 1}


def test_an_exemplar_points_at_a_trace_that_is_kept(stand):
    """Of a bad call in a trace that nobody would have kept otherwise; one that was dropped, or is nobody's, is not pointed at."""
    one = stand(slow=None)
    resilience = Resilience("service", clock=ManualClock(), seed=1)
    leave = resilience.follow_traces(current_trace())
    guard = resilience.guard("db")
    with one.tracer.start_as_current_span("request") as span, pytest.raises(ZeroDivisionError):
        guard.call(lambda: 1 / 0)
    (exemplar,) = guard.recorder.exemplars().values()
    assert int(exemplar.trace_id, 16) == span.get_span_context().trace_id
    assert one.why() == ["exemplar"]
    assert one.keep.claim(span.get_span_context().trace_id)
    dropped = one.request()
    assert not one.keep.claim(dropped.trace_id)
    assert not one.keep.claim(4711)
    leave()


# -- more than one root -----------------------------------------------------------------------------------------------------------------


def test_two_requests_of_one_trace_are_decided_together(stand):
    """While one of them is served nothing is decided; a caller that tries again is in the trace that was kept."""
    one = stand()
    parent = remote(sampled=False)
    context = set_span_in_context(NonRecordingSpan(parent))
    first, second = (one.tracer.start_span(name, context=context) for name in ("first", "second"))
    first.set_status(StatusCode.ERROR)
    first.end()
    assert one.names() == []
    second.end()
    assert one.names() == ["first", "second"]
    one.request("again", parent=parent)
    assert one.names()[2:] == ["child", "again"]


def test_spans_that_outlive_their_request_follow_it(stand):
    """A background task: kept with a trace that was kept, dropped with one that was dropped, unless it is bad itself."""
    one = stand()
    roots = [one.tracer.start_span(name) for name in ("kept", "dropped", "dropped too")]
    tasks = [one.tracer.start_span(f"task of {root.name}", context=set_span_in_context(root)) for root in roots]
    roots[0].set_status(StatusCode.ERROR)
    for root in roots:
        root.end()
    latest = one.tracer.start_span("latest", context=set_span_in_context(roots[2]))
    tasks[2].set_status(StatusCode.ERROR)
    for task in (*tasks, latest):
        task.end()
    assert one.names() == ["kept", "task of kept", "task of dropped too", "latest"]
    assert one.keep.counts().late == 1


# -- bounds -----------------------------------------------------------------------------------------------------------------------------


def test_so_many_traces_are_held_and_no_more(stand):
    """The oldest is decided by what is known of it; its spans follow."""
    one = stand(traces=10)
    roots = [one.tracer.start_span(f"r{number}") for number in range(30)]
    assert one.keep.counts().early == 20
    for root in roots:
        root.end()
    assert len(one.keep._traces) == 0
    assert len(one.keep._decided) <= 10
    assert one.keep.counts().held == 0


def test_so_many_spans_are_held_and_no_more(stand):
    """Of all traces together, and of each."""
    one = stand(spans=100, spans_each=60)
    roots = [one.tracer.start_span(name) for name in ("first", "second")]
    for root in roots:
        for number in range(70):
            one.tracer.start_span(f"{number}", context=set_span_in_context(root)).end()
            assert one.keep.counts().held <= 100
    counts = one.keep.counts()
    assert counts.overflow == 20
    assert counts.early == 1
    for root in roots:
        root.set_status(StatusCode.ERROR)
        root.end()
    # The first had to be decided before anybody knew; its root is bad by itself, and goes alone.
    assert one.names().count("first") == 1
    assert len(one.names()) == 1 + 61


def test_so_long_a_trace_is_held_and_no_longer(stand):
    """A request that never ends costs no memory for ever: it is decided when another one begins."""
    one = stand(longest=30.0)
    forgotten = one.tracer.start_span("forgotten")
    one.tracer.start_span("child", context=set_span_in_context(forgotten)).end()
    one.clock.advance(29.0)
    one.request()
    assert one.keep.counts().held == 1
    one.clock.advance(2.0)
    one.request()
    assert one.keep.counts().held == 0
    assert one.keep.counts().early == 1


# -- the SDK's side -----------------------------------------------------------------------------------------------------------------------


def test_the_end_decides_everything(stand):
    """What is interesting so far is exported, then the other processor is shut down, and spans that end later are nobody's."""
    one = stand()
    root = one.tracer.start_span("request")
    bad = one.tracer.start_span("bad", context=set_span_in_context(root))
    bad.set_status(StatusCode.ERROR)
    bad.end()
    one.provider.force_flush()
    assert one.names() == []
    one.keep.shutdown()
    assert one.names() == ["bad"]
    root.end()
    assert one.names() == ["bad"]


def test_an_exporter_gets_a_processor_with_a_bounded_queue():
    """And a flush gets to it."""
    exporter = InMemorySpanExporter()
    keep = KeepInteresting(exporter, ratio=1.0)
    provider = TracerProvider(sampler=keep.sampler, shutdown_on_exit=False)
    provider.add_span_processor(keep)
    with provider.get_tracer("tests").start_as_current_span("request"):
        pass
    assert provider.force_flush()
    assert [span.name for span in exporter.get_finished_spans()] == ["request"]
    provider.shutdown()


def test_a_processor_that_fails_costs_nobody_a_call(caplog):
    """It is reported once."""

    class Broken(SpanProcessor):
        def on_end(self, span):
            raise RuntimeError

    keep = KeepInteresting(Broken(), ratio=1.0)
    provider = TracerProvider(sampler=keep.sampler, shutdown_on_exit=False)
    provider.add_span_processor(keep)
    for _ in range(3):
        with provider.get_tracer("tests").start_as_current_span("request"):
            pass
    provider.shutdown()
    assert len([record for record in caplog.records if "KeepInteresting" in record.message]) == 1


def test_threads_lose_nothing(stand):
    """Eight of them, a thousand traces each: every bad one is exported whole, and nothing is held at the end."""
    one = stand()

    def work():
        for number in range(500):
            one.request(act=(lambda span: span.set_status(StatusCode.ERROR)) if number % 10 == 0 else None)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = one.keep.counts()
    assert counts.kept == {"bad": 400}
    assert counts.dropped == 3_600
    assert counts.held == 0
    assert len(one.names()) == 800


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_begins_anew(stand):
    """What the parent holds is the parent's to export; a lock that was held at the fork holds nobody up."""
    one = stand()
    root = one.tracer.start_span("parent's")
    one.tracer.start_span("child span", context=set_span_in_context(root)).end()
    with one.keep._lock:
        one.keep.after_fork_in_child()
    assert one.keep.counts().held == 0
    one.request("child's", act=lambda span: span.set_status(StatusCode.ERROR))
    assert one.names() == ["child", "child's"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_worker_that_was_forked_exports_what_is_its_own():
    """A request that the parent serves at the fork is the parent's to tell; those of the child are the child's."""
    program = textwrap.dedent(
        """
        import os
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
        from opentelemetry.trace import StatusCode, set_span_in_context
        from somaresil.integrations.otelsampler import KeepInteresting

        class Printing(SpanExporter):
            def export(self, spans):
                print(who, *(span.name for span in spans), flush=True)
                return SpanExportResult.SUCCESS

        who = "parent"
        keep = KeepInteresting(SimpleSpanProcessor(Printing()), ratio=0.0)
        provider = TracerProvider(sampler=keep.sampler, shutdown_on_exit=False)
        provider.add_span_processor(keep)
        tracer = provider.get_tracer("tests")

        def request(name):
            with tracer.start_as_current_span(name) as span:
                span.set_status(StatusCode.ERROR)

        root = tracer.start_span("served at the fork")
        tracer.start_span("part of it", context=set_span_in_context(root)).end()
        child = os.fork()
        if not child:
            who = "child"
            request("child's")
            os._exit(keep.counts().held)
        assert os.waitpid(child, 0)[1] == 0
        root.set_status(StatusCode.ERROR)
        root.end()
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["child child's", "parent part of it", "parent served at the fork"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"to": 5}, "to"),
        ({"ratio": 1.5}, "ratio"),
        ({"slow": -1.0}, "slow"),
        ({"slow": "fast"}, "slow"),
        ({"slow": {"*": -2.0}}, "slow"),
        ({"also": 5}, "also"),
        ({"traces": 1}, "traces"),
        ({"spans": 1}, "spans"),
        ({"spans_each": 0}, "spans_each"),
        ({"longest": 0.0}, "longest"),
    ],
)
def test_wrong_arguments_are_refused(options, problem):
    """By name."""
    with pytest.raises(ConfigurationError) as refused:
        KeepInteresting(**{"to": SimpleSpanProcessor(InMemorySpanExporter()), **options})
    assert [found.path.partition("[")[0] for found in refused.value.problems] == [f"KeepInteresting.{problem}"]


def test_the_sampler_describes_itself(stand):
    """As those of the SDK do."""
    assert stand(ratio=0.25).keep.sampler.get_description() == "KeepInteresting{0.25}"


# -- whatever happens -------------------------------------------------------------------------------------------------------------------


class _Ids(RandomIdGenerator):
    """Trace ids from a list."""

    def __init__(self, ids):
        self._ids = iter(ids)

    def generate_trace_id(self):
        return next(self._ids)


class _Kept(SpanExporter):
    def __init__(self):
        self.spans = []

    def export(self, spans):
        self.spans += spans
        return SpanExportResult.SUCCESS


@given(
    ratio=st.sampled_from([0.0, 0.3, 1.0]),
    shapes=st.lists(
        st.tuples(st.integers(1, (1 << 128) - 1), st.booleans(), st.lists(st.booleans(), max_size=4)),
        max_size=12,
        unique_by=lambda it: it[0],
    ),
)
@settings(max_examples=150, deadline=None)
def test_a_trace_is_exported_whole_or_not_at_all(ratio, shapes):
    """Within the bounds, in whatever order the spans of several traces end: exactly those with something bad or in the share."""
    kept = _Kept()
    keep = KeepInteresting(SimpleSpanProcessor(kept), ratio=ratio, slow=None)
    provider = TracerProvider(sampler=keep.sampler, shutdown_on_exit=False, id_generator=_Ids([ids for ids, _, _ in shapes]))
    provider.add_span_processor(keep)
    tracer = provider.get_tracer("tests")
    roots = [tracer.start_span("root") for _ in shapes]
    for root, (_, _, children) in zip(roots, shapes, strict=True):
        for bad in children:
            child = tracer.start_span("child", context=set_span_in_context(root))
            if bad:
                child.set_status(StatusCode.ERROR)
            child.end()
    for root, (_, bad, _) in zip(reversed(roots), reversed(shapes), strict=True):
        if bad:
            root.set_status(StatusCode.ERROR)
        root.end()
    expected = {ids: 1 + len(children) for ids, bad, children in shapes if bad or any(children) or keep.sampled_by_ratio(ids)}
    found = {}
    for span in kept.spans:
        found[span.context.trace_id] = found.get(span.context.trace_id, 0) + 1
    assert found == expected
    assert keep.counts().held == 0
    provider.shutdown()
