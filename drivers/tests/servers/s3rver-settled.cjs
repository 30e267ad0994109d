// Loaded into s3rver before it starts. By itself it answers a write once it has the content, and puts that into the file meanwhile: who reads at once may find
// nothing in it, or what was there before. With this it answers when the file is closed.
'use strict';

const { realpathSync } = require('fs');
const { createRequire } = require('module');
const path = require('path');

const itself = createRequire(realpathSync(process.argv[1]));
const Store = itself('../lib/stores/filesystem');
const files = itself('fs-extra');

const open = new Map();
const createWriteStream = files.createWriteStream;
files.createWriteStream = (file, ...options) => {
  const stream = createWriteStream(file, ...options);
  const closed = new Promise((resolve, reject) => stream.on('close', resolve).on('error', reject));
  // Who waits is told of an error; it is no other's.
  closed.catch(() => {}).then(() => open.get(file) === closed && open.delete(file));
  open.set(file, closed);
  return stream;
};

const { putObject, putPart } = Store.prototype;
Store.prototype.putObject = async function (object) {
  const put = await putObject.call(this, object);
  await open.get(this.getResourcePath(object.bucket, object.key, 'object'));
  return put;
};
Store.prototype.putPart = async function (bucket, uploadId, partNumber, content) {
  const put = await putPart.call(this, bucket, uploadId, partNumber, content);
  await open.get(path.join(this.getResourcePath(bucket, undefined, 'uploads'), uploadId, partNumber.toString()));
  return put;
};
