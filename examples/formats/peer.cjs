// Both ends of a trace in Node: what peer.py does in Python.
'use strict'

const http = require('node:http')

const FORMAT = process.argv[2]
const DATADOG = { datadog: 'datadog', tracecontext: 'tracecontext', b3: 'b3 single header', b3multi: 'b3multi' }

function opentelemetry () {
  const api = require('@opentelemetry/api')
  const core = require('@opentelemetry/core')
  const b3 = (encoding) => {
    const { B3InjectEncoding, B3Propagator } = require('@opentelemetry/propagator-b3')
    return new B3Propagator({ injectEncoding: B3InjectEncoding[encoding] })
  }
  const formats = {
    tracecontext: () => [new core.W3CTraceContextPropagator(), new core.W3CBaggagePropagator()],
    b3: () => [b3('SINGLE_HEADER')],
    b3multi: () => [b3('MULTI_HEADER')],
    jaeger: () => [new (require('@opentelemetry/propagator-jaeger').JaegerPropagator)()],
    xray: () => [new (require('@opentelemetry/propagator-aws-xray').AWSXRayPropagator)()]
  }
  const propagator = new core.CompositePropagator({ propagators: formats[FORMAT]() })

  return {
    inject ({ trace_id: traceId, span_id: spanId, sampled }) {
      const span = { traceId, spanId, traceFlags: sampled ? 1 : 0, isRemote: false }
      if (FORMAT === 'tracecontext') span.traceState = new core.TraceState('peer=node')
      let context = api.trace.setSpanContext(api.ROOT_CONTEXT, span)
      if (FORMAT === 'tracecontext' || FORMAT === 'jaeger') {
        const baggage = api.propagation.createBaggage({ tenant: { value: 'blue/é' } })
        context = api.propagation.setBaggage(context, baggage)
      }
      const headers = {}
      propagator.inject(context, headers, api.defaultTextMapSetter)
      return headers
    },
    extract (headers) {
      const context = propagator.extract(api.ROOT_CONTEXT, headers, api.defaultTextMapGetter)
      const span = api.trace.getSpanContext(context)
      if (!span) return null
      const baggage = api.propagation.getBaggage(context)?.getAllEntries() ?? []
      return {
        trace_id: span.traceId,
        span_id: span.spanId,
        sampled: (span.traceFlags & 1) === 1,
        state: span.traceState?.serialize() ?? '',
        baggage: Object.fromEntries(baggage.map(([key, { value }]) => [key, value]))
      }
    }
  }
}

function ddtrace () {
  process.env.DD_TRACE_PROPAGATION_STYLE = DATADOG[FORMAT]
  process.env.DD_INSTRUMENTATION_TELEMETRY_ENABLED = 'false'
  process.env.DD_REMOTE_CONFIGURATION_ENABLED = 'false'
  // It is here for its propagation alone: without plugins it leaves this program's own requests alone.
  const tracer = require('dd-trace').init({ startupLogs: false, plugins: false })
  // There is no public way to a context with given ids but a header, and that is what is to be made.
  const SpanContext = require('dd-trace/packages/dd-trace/src/opentracing/span_context')
  const id = require('dd-trace/packages/dd-trace/src/id')

  return {
    inject (ids) {
      const context = new SpanContext({
        traceId: id(ids.trace_id.slice(16), 16),
        spanId: id(ids.span_id, 16),
        sampling: { priority: ids.sampled ? 1 : 0 }
      })
      const high = ids.trace_id.slice(0, 16)
      if (high !== '0'.repeat(16)) context._trace.tags['_dd.p.tid'] = high
      const headers = {}
      tracer.inject(context, 'http_headers', headers)
      return headers
    },
    extract (headers) {
      const context = tracer.extract('http_headers', headers)
      return context && {
        trace_id: context.toTraceId(true).padStart(32, '0'),
        span_id: context.toSpanId(true).padStart(16, '0'),
        sampled: context._sampling.priority > 0
      }
    }
  }
}

function sentry () {
  const { generateSentryTraceHeader, propagationContextFromHeaders } = require('@sentry/core')
  return {
    inject: (ids) => ({
      'sentry-trace': generateSentryTraceHeader(ids.trace_id, ids.span_id, ids.sampled),
      baggage: `sentry-trace_id=${ids.trace_id},sentry-sample_rate=1.0`
    }),
    extract (headers) {
      const context = propagationContextFromHeaders(headers['sentry-trace'], headers.baggage)
      return {
        trace_id: context.traceId,
        span_id: context.parentSpanId,
        sampled: context.sampled,
        state: headers.baggage ?? ''
      }
    }
  }
}

const LIBRARIES = {}
for (const [name, make, formats] of [
  ['opentelemetry (npm)', opentelemetry, ['tracecontext', 'b3', 'b3multi', 'jaeger', 'xray']],
  ['dd-trace (npm)', ddtrace, Object.keys(DATADOG)],
  ['sentry (npm)', sentry, ['sentry-trace']]
]) {
  if (!formats.includes(FORMAT)) continue
  try {
    LIBRARIES[name] = make()
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error
  }
}

const read = async (stream) => {
  let text = ''
  for await (const piece of stream.setEncoding('utf8')) text += piece
  return text
}

function call ({ library, url, extract_with: extractWith, ...ids }) {
  const sent = LIBRARIES[library].inject(ids)
  return new Promise((resolve, reject) => {
    const request = http.get(url, { headers: { ...sent, 'x-extract-with': extractWith }, agent: false }, async (response) => {
      const seen = JSON.parse(await read(response))
      resolve({ sent, server_timing: response.headers['server-timing'], seen })
    })
    request.on('error', reject)
  })
}

const server = http.createServer(async (request, response) => {
  let answer
  try {
    if (request.url === '/libraries') answer = Object.keys(LIBRARIES)
    else if (request.method === 'POST') answer = await call(JSON.parse(await read(request)))
    else answer = LIBRARIES[request.headers['x-extract-with']].extract(request.headers)
  } catch (error) {
    console.error(error)
    response.writeHead(500)
  }
  response.end(JSON.stringify(answer ?? null))
})
server.listen(0, '127.0.0.1', () => console.log(`peer at http://127.0.0.1:${server.address().port}`))
process.on('SIGTERM', () => process.exit(0))
