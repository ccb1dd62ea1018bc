"use strict";

// A chunk is a script that calls addChunk(name, data). Data is base64 of gzip, or a list of base64 pictures.

const KEPT_CHUNKS = 200; // pictures and histories in memory, some 250 kB each at most
const BINARY = new Set(["rows", "scores"]);
const arrived = new Map();
const chunks = new Map(); // name -> promise of the unpacked value, the last used one last
const scriptUrls = window.trustedTypes
  ? trustedTypes.createPolicy("chunks", { createScriptURL: chunkUrl })
  : { createScriptURL: chunkUrl };

function chunkUrl(name) {
  if (!/^[a-z]+(-[0-9a-f]+)?$/.test(name)) throw new TypeError(`not a chunk: ${name}`);
  return `data/${name}.js`;
}

/** Called by the chunks. */
function addChunk(name, data) {
  arrived.set(name, data);
}

/** The value of a chunk: an ArrayBuffer, a list of pictures, or JSON. */
function loadChunk(name) {
  const known = chunks.get(name) || requestChunk(name).then((data) => unpackChunk(name, data));
  chunks.delete(name);
  chunks.set(name, known);
  known.catch(() => chunks.delete(name));
  evictChunks();
  return known;
}

function requestChunk(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const finish = () => {
      script.remove();
      const data = arrived.get(name);
      arrived.delete(name);
      if (data === undefined) {
        reject(new Error(`data/${name}.js is missing or damaged. Copy the whole folder of the report, or draw it again with: stylear curate report CORPUS`));
      } else {
        resolve(data);
      }
    };
    script.addEventListener("load", finish);
    script.addEventListener("error", finish);
    script.src = scriptUrls.createScriptURL(name);
    document.head.append(script);
  });
}

async function unpackChunk(name, data) {
  if (typeof data !== "string") return data;
  const binary = atob(data);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const response = new Response(stream);
  return BINARY.has(name) ? response.arrayBuffer() : response.json();
}

function evictChunks() {
  let many = 0;
  for (const name of [...chunks.keys()].reverse()) {
    if (/^(pictures|histories)-/.test(name) && ++many > KEPT_CHUNKS) chunks.delete(name);
  }
}
