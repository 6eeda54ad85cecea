"""Files of measurements as tools write them, small enough to be read."""

from __future__ import annotations

import json

COMMIT = "0123456789abcdef0123456789abcdef01234567"

PYTEST_BENCHMARK = {
    "machine_info": {
        "node": "secret-host",
        "machine": "x86_64",
        "python_implementation": "CPython",
        "python_version": "3.11.7",
        "system": "Linux",
        "cpu": {"brand_raw": "Some Processor", "count": 2},
    },
    "commit_info": {"id": COMMIT, "time": None, "dirty": False},
    "benchmarks": [
        {
            "name": "test_fast",
            "fullname": "tests/test_b.py::test_fast",
            "stats": {"min": 1e-3, "max": 4e-3, "mean": 2e-3, "median": 2e-3, "data": [1e-3, 2e-3, 4e-3]},
        }
    ],
    "datetime": "2026-11-27T19:17:43.1+00:00",
    "version": "5.3.1",
}
PYPERF = {
    "benchmarks": [
        {
            "runs": [
                {"metadata": {"date": "2026-11-27 19:17:45.010737"}, "warmups": [[1, 2e-6]]},
                {"metadata": {"date": "2026-11-27 19:17:46.0"}, "values": [1e-6, 3e-6], "warmups": [[4, 1e-6]]},
                {"metadata": {"date": "2026-11-27 19:17:47.0"}, "values": [4e-6, 4e-6]},
            ]
        }
    ],
    "metadata": {
        "name": "timeit",
        "unit": "second",
        "hostname": "secret-host",
        "cpu_model_name": "Some Processor",
        "cpu_count": 2,
        "python_implementation": "cpython",
        "python_version": "3.11.7 (64-bit)",
    },
    "version": "1.0",
}
HYPERFINE = {"results": [{"command": "sleep 0", "mean": 0.2, "times": [0.1, 0.3], "exit_codes": [0, None]}]}
LOCUST_CSV = (
    "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Min Response Time,Max Response Time,"
    "Average Content Size,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%\r\n"
    "GET,/v1/items,200,2,3,3.7,2.0,20.3,335.0,18.5,0.2,3,3,4,4,90,2000,20,2100,20,20,12000\r\n"
    ",Aggregated,200,2,3,3.7,2.0,20.3,335.0,18.5,0.2,3,3,4,4,90,2000,20,2100,20000,20,12000\r\n"
)
LOCUST_JSON = [
    {
        "name": "/v1/items",
        "method": "GET",
        "start_time": 1000.0,
        "last_request_timestamp": 1010.0,
        "num_requests": 100,
        "num_failures": 5,
        "response_times": {"3": 50, "20": 45, "2000": 5},
    }
]
K6 = {
    "metrics": {
        "http_req_duration": {"type": "trend", "contains": "time", "values": {"avg": 20.0, "med": 10.0, "p(95)": 90.0, "max": 100.0}},
        "http_req_duration{name:login}": {"type": "trend", "contains": "time", "values": {"p(99.9)": 90.0}},
        "http_reqs": {"type": "counter", "contains": "default", "values": {"count": 100, "rate": 10.0}},
        "http_req_failed": {"type": "rate", "contains": "default", "values": {"rate": 0.25, "passes": 25, "fails": 75}},
        "dropped_iterations": {"type": "counter", "contains": "default", "values": {"count": 3, "rate": 0.1}},
        "data_sent": {"type": "counter", "contains": "data", "values": {"count": 3, "rate": 0.1}},
    },
    "root_group": {},
}
K6_EXPORT = {
    "metrics": {
        "http_req_duration": {"avg": 20.0, "min": 1.0, "med": 10.0, "max": 100.0, "p(90)": 50.0, "p(95)": 90.0},
        "http_reqs": {"count": 100, "rate": 10.0},
        "http_req_failed": {"passes": 25, "fails": 75, "value": 0.25},
        "my_trend": {"avg": 1.0},
    }
}
K6_LINES = "\n".join(
    [
        json.dumps(
            {"type": "Metric", "data": {"name": "http_req_duration", "type": "trend", "contains": "time"}, "metric": "http_req_duration"}
        ),
        *(
            json.dumps(
                {
                    "type": "Point",
                    "metric": metric,
                    "data": {"time": f"2026-11-27T19:00:0{n}Z", "value": value, "tags": {"name": "/a", "method": "GET"}},
                }
            )
            for n in range(5)
            for metric, value in (("http_req_duration", 10.0 * (n + 1)), ("http_req_failed", float(n == 0)))
        ),
        json.dumps({"type": "Point", "metric": "dropped_iterations", "data": {"time": "2026-11-27T19:00:00Z", "value": 2}}),
    ]
)
OHA = {
    "summary": {"successRate": 1.0, "total": 10.0, "requestsPerSec": 100.0},
    "latencyPercentiles": {"p10": 0.001, "p50": 0.002, "p95": 0.003, "p99.9": 0.004},
    "statusCodeDistribution": {"200": 90, "503": 8},
    "errorDistribution": {"connection refused": 2},
}
WRK = """Running 1s test @ http://127.0.0.1:8931/v1/items
  1 threads and 2 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.47ms    1.68ms   9.57ms   86.15%
    Req/Sec     1.86k   130.84     2.04k    72.73%
  Latency Distribution
     50%  716.00us
     75%    1.40ms
     90%    4.05ms
     99%    7.90ms
  2000 requests in 1.10s, 493.96MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 90
Requests/sec:   1844.42
Transfer/sec:    449.03MB
"""
LOAD = {
    "version": 1,
    "scenario": "conversation",
    "started_at": 1000.0,
    "seconds": 10.0,
    "complete": True,
    "generator": {"saturated": []},
    "requests": {
        "message": {
            "ended": 1000,
            "good": 990,
            "failed": 10,
            "dropped": 2,
            "errors": {"503": 10},
            "latency": {"p50": 0.1, "p95": 0.2, "p99": 0.4, "p100": 0.5},
            "first": {"p50": 0.02, "p95": None},
            "gap": {"p99": 0.03},
            "streams": 500,
            "truncated": 1,
        }
    },
    "notes": ["a note"],
}
PROMETHEUS = {
    "status": "success",
    "data": {
        "resultType": "matrix",
        "result": [{"metric": {"__name__": "request_seconds", "path": "/a"}, "values": [[1000, "0.5"], [1060, "0.25"]]}],
    },
}
CSV = "name,value,unit,metric\ncold start,1500,ms,duration\ncold start,1.25,s,duration\nserve,1000,rps,throughput\n"

TEXTS = {
    "pytest-benchmark": json.dumps(PYTEST_BENCHMARK),
    "pyperf": json.dumps(PYPERF),
    "hyperfine": json.dumps(HYPERFINE),
    "locust": LOCUST_CSV,
    "locust-json": json.dumps(LOCUST_JSON),
    "k6": json.dumps(K6),
    "k6-export": json.dumps(K6_EXPORT),
    "k6-lines": K6_LINES,
    "oha": json.dumps(OHA),
    "wrk": WRK,
    "load": json.dumps(LOAD),
    "prometheus": json.dumps(PROMETHEUS),
    "csv": CSV,
}
