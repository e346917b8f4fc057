"""An app that says too much when it fails, as many do: what it was sent, and what it knows itself."""

import json
import os

from flask import Flask, Response, jsonify, request

app = Flask(__name__)
# Secrets of its own, by what they are.
OWN = json.loads(os.environ["SECRETS"])


@app.get("/fine")
def fine():
    return jsonify(fine=True)


@app.route("/fails/<int:number>", methods=["GET", "POST"])
def fails(number):
    return jsonify(detail=f"canary failed for the {number}th time"), 500


@app.get("/fields/<int:number>")
def fields(number):
    told = {
        "detail": f"canary login {number} failed",
        "password": OWN["a JSON field password"],
        "user": {"access_token": OWN["a nested JSON field access_token"]},
        "context": [{"api_key": OWN["a JSON field api_key in a list"]}],
        "clientSecret": OWN["a JSON field clientSecret"],
    }
    return jsonify(told), 500


@app.get("/messages/<int:number>")
def messages(number):
    """Secrets in what becomes a title."""
    told = [
        f"canary: cannot connect to postgres://app:{OWN['a connection string']}@db.internal:5432/shop",
        f"canary: upstream refused Authorization: Bearer {OWN['a bearer token in a message']}",
        f"canary: login failed with password={OWN['a password= in a message']} for user 7",
        f"canary: GET https://api.example.com/v1?api_key={OWN['a query in a message']}&page=2 failed",
        f'canary: bad settings {{"secret_key": "{OWN["JSON in a message"]}"}}',
        f"canary: token {OWN['a JWT in a message']} is expired",
        f"canary: AWS_SECRET_ACCESS_KEY={OWN['an environment variable in a message']} is wrong",
    ]
    return jsonify(error=told[number % len(told)]), 500


@app.get("/pages/<int:number>")
def pages(number):
    """A page of a framework in development, with lines of source."""
    told = f"""<!doctype html>
<title>OperationalError: canary connection {number} failed // Werkzeug Debugger</title>
<h1>OperationalError</h1><p class="errormsg">OperationalError: canary connection {number} failed:
mysql://root:{OWN["a URL on a page"]}@10.0.0.3/shop</p>
<div class="traceback"><ul><li><div class="frame"><h4>File <cite class="filename">"/srv/app/db.py"</cite>,
line <em class="line">12</em>, in <code class="function">connect</code></h4><div class="source">
<pre class="line current">    connect(password="{OWN["a line of source"]}")</pre></div></div></li></ul></div>
<!-- Traceback (most recent call last):
  File "/srv/app/db.py", line 12, in connect
    connect(password="{OWN["a line of source"]}")
OperationalError: canary connection {number} failed: mysql://root:{OWN["a URL on a page"]}@10.0.0.3/shop
-->"""
    return Response(told, 500, mimetype="text/html")


@app.get("/text/<int:number>")
def text(number):
    told = f"""Traceback (most recent call last):
  File "/srv/app/pay.py", line 31, in pay
    headers={{"Authorization": "Bearer {OWN["a line of a traceback"]}"}}
ValueError: canary payment {number} refused: Cookie: session={OWN["a cookie in a traceback"]}
"""
    return Response(told, 500, mimetype="text/plain")


@app.get("/cookies/<int:number>")
def cookies(number):
    response = jsonify(detail=f"canary cookie {number}")
    response.status_code = 503
    response.set_cookie("session", OWN["Set-Cookie"], httponly=True)
    response.headers["x-auth-token"] = OWN["X-Auth-Token of an answer"]
    response.headers["location"] = f"https://u:{OWN['userinfo in Location']}@example.com/"
    response.headers["www-authenticate"] = (
        f'Bearer realm="x", error="invalid", token="{OWN["WWW-Authenticate"]}"'
    )
    return response


@app.post("/echo/<int:number>")
def echo(number):
    """What many do with what they do not understand."""
    return jsonify(message=f"canary cannot read body {number}", body=request.get_json()), 500
