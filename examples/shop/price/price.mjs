// Price: what an article costs. Node's standard library only.
//
//   GET  /price/{sku}    {"sku", "cents", "served_by"}
//   GET  /healthz        200
//   POST /fault?kind=errors|latency|hang|reset|none&percent=100&seconds=20&delay=1.0
//                        misbehaves on demand; ends by itself

import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { port: { type: 'string' } } });
if (!values.port) {
  console.error('usage: node price.mjs --port PORT');
  process.exit(2);
}

let fault = { kind: 'none', percent: 0, until: 0, delay: 1 };
let name = 'price';

/** The fault that hits this request, if any. */
function strikes() {
  return Date.now() < fault.until && Math.random() * 100 < fault.percent ? fault.kind : 'none';
}

function answer(response, status, document) {
  const body = JSON.stringify(document) + '\n';
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

function price(response, path) {
  const sku = path.slice('/price/'.length);
  let cents = 100;
  for (const letter of sku) cents = (cents * 31 + letter.codePointAt(0)) % 10_000;
  answer(response, 200, { sku, cents, served_by: name });
}

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://price');
  request.resume();
  if (request.method === 'POST' && url.pathname === '/fault') {
    const number = (key, fallback) => Number(url.searchParams.get(key) ?? fallback);
    const [percent, seconds, delay] = [number('percent', 100), number('seconds', 20), number('delay', 1)];
    if (![percent, seconds, delay].every(Number.isFinite)) {
      return answer(response, 400, { error: 'percent, seconds and delay are numbers' });
    }
    fault = { kind: url.searchParams.get('kind') ?? 'none', percent, delay, until: Date.now() + Math.min(600, seconds) * 1000 };
    return answer(response, 200, { fault: fault.kind, percent });
  }
  if (url.pathname === '/healthz') return answer(response, 200, { ok: true });
  if (!url.pathname.startsWith('/price/')) return answer(response, 404, { error: 'no such page' });
  switch (strikes()) {
    case 'errors':
      return answer(response, 503, { error: 'price is out of order', served_by: name });
    case 'latency':
      return setTimeout(price, fault.delay * 1000, response, url.pathname);
    case 'hang':
      return setTimeout(price, Math.max(0, fault.until - Date.now()), response, url.pathname);
    case 'reset':
      return request.socket.resetAndDestroy();
    default:
      return price(response, url.pathname);
  }
});
server.keepAliveTimeout = 120_000;
server.listen({ port: Number(values.port), host: '127.0.0.1', backlog: 1024 }, () => {
  name = `price:${server.address().port}`;
  console.log(`${name} ready`);
});
