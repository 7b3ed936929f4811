// Runs once, when MongoDB's volume is new: the relay's user, who may read and write the database of the results alone.
const password = require("fs").readFileSync("/run/secrets/mongo-password", "utf8").trim();
db.getSiblingDB("inference").createUser({ user: "inference", pwd: password, roles: ["readWrite"] });
