#!/bin/bash
# The agent of Session Manager, from Amazon's bucket in the machine's own region; it stays in the image.
set -euo pipefail
token=$(curl --silent --fail --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
region=$(curl --silent --fail --header "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/placement/region)
curl --silent --fail --output /tmp/agent.deb "https://s3.$region.amazonaws.com/amazon-ssm-$region/latest/debian_amd64/amazon-ssm-agent.deb"
dpkg --install /tmp/agent.deb
rm /tmp/agent.deb
systemctl enable --now amazon-ssm-agent
